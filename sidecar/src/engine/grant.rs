//! The operator's grant as the engine understands it. Pure.

use std::collections::BTreeSet;

use walstorage_crds::url::WalUrl;

/// The operator's permission for one pod to be the holder of a writer: which directories it has, and which of them it
/// may begin anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The writer's uid.
    pub writer_uid: uuid::Uuid,
    /// The granted epoch.
    pub epoch: u64,
    /// The pod's uid.
    pub holder: String,
    /// What this pod mounts or reaches.
    pub urls: Vec<GrantedUrl>,
    /// Names of URLs whose directories may be made anew. An empty directory of any other name has lost what it held.
    pub init: BTreeSet<String>,
    /// Names of URLs whose earlier directories are given up: what they held becomes gaps.
    pub forget: BTreeSet<String>,
}

/// One URL of a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantedUrl {
    /// The directory's identity in the resource.
    pub name: String,
    /// Where it is.
    pub url: WalUrl,
}

impl Grant {
    /// The name under which a URL is granted.
    #[must_use]
    pub fn name_of(&self, url: &WalUrl) -> Option<&str> {
        self.urls.iter().find(|granted| granted.url == *url).map(|granted| granted.name.as_str())
    }

    /// Whether the directory of a URL may be made anew.
    #[must_use]
    pub fn lets_init(&self, url: &WalUrl) -> bool {
        self.name_of(url).is_some_and(|name| self.init.contains(name))
    }

    /// Whether what the directory of a URL held before is given up.
    #[must_use]
    pub fn gives_up(&self, url: &WalUrl) -> bool {
        self.name_of(url).is_some_and(|name| self.forget.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_may_be_made_anew_or_given_up() {
        let url = |text: &str| WalUrl::parse(text).unwrap();
        let granted = |name: &str, text: &str| GrantedUrl { name: name.into(), url: url(text) };
        let grant = Grant {
            writer_uid: uuid::Uuid::nil(),
            epoch: 1,
            holder: "pod".into(),
            urls: vec![granted("a", "file:///a"), granted("b", "file:///b/")],
            init: ["a", "c"].map(String::from).into(),
            forget: ["b".to_owned()].into(),
        };
        let table = [
            ("file:///a", Some("a"), true, false),
            ("file:///b", Some("b"), false, true),
            ("file:///c", None, false, false),
        ];
        for (text, name, init, forget) in table {
            let url = url(text);
            assert_eq!((grant.name_of(&url), grant.lets_init(&url), grant.gives_up(&url)), (name, init, forget));
        }
    }
}
