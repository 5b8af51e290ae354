//! The operator's grant as the pod's environment carries it (operator-reference.md, section 3). Pure.

use serde::Deserialize;
use walstorage_crds::url::WalUrl;

use crate::engine::{Grant, GrantedUrl};

/// What the environment says about the grant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    /// `WALSTORAGE_REQUIRE_GRANT`.
    pub(crate) required: bool,
    /// `WALSTORAGE_GRANT`.
    pub(crate) grant: Option<String>,
    /// `WALSTORAGE_POD_UID`.
    pub(crate) pod_uid: Option<String>,
}

/// One line of JSON. Unknown members are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    writer_uid: uuid::Uuid,
    epoch: u64,
    urls: Vec<NamedUrl>,
    #[serde(default)]
    init: Vec<String>,
    #[serde(default)]
    forget: Vec<String>,
}

#[derive(Deserialize)]
struct Version {
    v: u64,
}

#[derive(Deserialize)]
struct NamedUrl {
    name: String,
    url: String,
}

/// Epochs are below this.
const EPOCH_END: u64 = 1 << 43;

/// The grant, where there is one. One that is there and cannot be read is an error, required or not: ignoring it could
/// start a second holder.
pub(crate) fn parse(environment: &Environment) -> Result<Option<Grant>, String> {
    let text = environment.grant.as_deref().map(str::trim).unwrap_or_default();
    if text.is_empty() {
        if environment.required {
            return Err("WALSTORAGE_GRANT is empty and WALSTORAGE_REQUIRE_GRANT is set: the operator has not granted \
                        this pod its writer yet"
                .into());
        }
        return Ok(None);
    }
    let unreadable = |e: serde_json::Error| format!("WALSTORAGE_GRANT cannot be read: {e}");
    let Version { v } = serde_json::from_str(text).map_err(unreadable)?;
    if v != 1 {
        return Err(format!("WALSTORAGE_GRANT has version {v}; this build knows version 1"));
    }
    let Document { writer_uid, epoch, urls, init, forget } = serde_json::from_str(text).map_err(unreadable)?;
    if epoch == 0 || epoch >= EPOCH_END {
        return Err(format!("WALSTORAGE_GRANT has epoch {epoch}; epochs are from 1 to {}", EPOCH_END - 1));
    }
    let holder = environment.pod_uid.clone().unwrap_or_default();
    if holder.is_empty() {
        return Err("WALSTORAGE_GRANT is set and WALSTORAGE_POD_UID is not: a grant is for one pod".into());
    }
    let urls = granted(urls)?;
    let (init, forget) = (init.into_iter().collect(), forget.into_iter().collect());
    Ok(Some(Grant { writer_uid, epoch, holder, urls, init, forget }))
}

/// The URLs, each name and each place once: a directory that two names share could be begun anew by either.
fn granted(urls: Vec<NamedUrl>) -> Result<Vec<GrantedUrl>, String> {
    let mut granted: Vec<GrantedUrl> = Vec::with_capacity(urls.len());
    for NamedUrl { name, url } in urls {
        let parsed = WalUrl::parse(&url).map_err(|e| format!("WALSTORAGE_GRANT has URL {url:?}: {e}"))?;
        if granted.iter().any(|other| other.name == name || other.url == parsed) {
            return Err(format!("WALSTORAGE_GRANT has URL {name} ({url}) twice"));
        }
        granted.push(GrantedUrl { name, url: parsed });
    }
    Ok(granted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRANT: &str = r#"{"v":1,"writerUid":"6f2c6d0e-5c55-4f5e-9d5a-0f6f6e3f8a11","epoch":1763857930123,"urls":[{"name":"nvme1","url":"file:///wal/nvme1","claim":"x"}],"init":["nvme1"],"forget":[],"later":true}"#;

    fn environment(grant: &str) -> Environment {
        Environment { required: true, grant: Some(grant.into()), pod_uid: Some("pod".into()) }
    }

    #[test]
    fn a_grant_names_writer_epoch_and_holder() {
        let grant = parse(&environment(GRANT)).unwrap().unwrap();
        assert_eq!((grant.epoch, grant.holder.as_str()), (1_763_857_930_123, "pod"));
        let url = WalUrl::parse("file:///wal/nvme1").unwrap();
        assert_eq!((grant.name_of(&url), grant.lets_init(&url), grant.gives_up(&url)), (Some("nvme1"), true, false));
    }

    #[test]
    fn no_grant_is_fine_where_none_is_required() {
        assert_eq!(parse(&Environment::default()), Ok(None));
    }

    #[test]
    fn a_grant_that_cannot_be_used_is_named() {
        let without_pod = Environment { pod_uid: None, ..environment(GRANT) };
        let table = [
            (environment(""), "is empty"),
            (Environment { required: true, ..Environment::default() }, "is empty"),
            (environment("{"), "cannot be read"),
            (Environment { required: false, ..environment("nonsense") }, "cannot be read"),
            (environment(r#"{"v":2}"#), "version 2"),
            (environment(r#"{"writerUid":"x"}"#), "missing field `v`"),
            (environment(r#"{"v":1,"epoch":3}"#), "missing field `writerUid`"),
            (environment(&GRANT.replace("\"urls\"", "\"others\"")), "missing field `urls`"),
            (environment(&GRANT.replace("file:///wal", "file://wal")), "file://wal/nvme1"),
            (
                environment(&GRANT.replace("\"urls\":[", "\"urls\":[{\"name\":\"x\",\"url\":\"file:///wal/nvme1/\"},")),
                "twice",
            ),
            (environment(&GRANT.replace("1763857930123", "0")), "epoch 0"),
            (environment(&GRANT.replace("1763857930123", "8796093022208")), "epoch 8796093022208"),
            (without_pod, "WALSTORAGE_POD_UID"),
        ];
        for (environment, message) in table {
            let error = parse(&environment).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
