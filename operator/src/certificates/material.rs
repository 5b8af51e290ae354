//! The Secret's content: `ca.crt` (one authority, or two while one replaces the other), `ca.key`, `tls.crt`, `tls.key`, and
//! `next.*` while a rotation is being prepared.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::issue::{self, Certificate, IssueError, Pair};
use super::rotation::{Facts, Life};

/// What is served next, and by which authority it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// The authority.
    pub authority: Pair,
    /// The leaf.
    pub leaf: Pair,
}

/// What the Secret holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Material {
    /// The authority that signs, with its key.
    pub authority: Pair,
    /// Other authorities of the bundle.
    pub others: Vec<String>,
    /// What is served.
    pub leaf: Pair,
    /// What is to be served.
    pub next: Option<Next>,
}

impl Material {
    /// New from nothing.
    ///
    /// # Errors
    /// When a certificate cannot be made.
    pub fn create(names: &[String], now: i64, life: Life) -> Result<Self, IssueError> {
        let authority = issue::authority(now, life.authority)?;
        let leaf = issue::leaf(&authority, names, now, life.leaf)?;
        Ok(Self { authority, others: Vec::new(), leaf, next: None })
    }

    /// Reads a Secret.
    ///
    /// # Errors
    /// A sentence, when something is missing or does not fit the rest.
    pub fn read(secret: &Secret) -> Result<Self, String> {
        let text = |key: &str| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
            bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()).filter(|text| !text.trim().is_empty())
        };
        let needed = |key: &str| text(key).map(str::to_owned).ok_or_else(|| format!("{key} is missing"));
        let pair = |certificate: &str, key: &str| {
            Ok::<_, String>(Pair { certificate: needed(certificate)?, key: needed(key)? })
        };
        let key = needed("ca.key")?;
        let (mut ours, others): (Vec<_>, Vec<_>) = issue::split(&needed("ca.crt")?)
            .into_iter()
            .partition(|one| issue::read(one).is_ok_and(|read| issue::belongs(&key, &read)));
        let certificate = ours.pop().ok_or("ca.key belongs to no certificate of ca.crt")?;
        let next = match text("next.ca.crt") {
            None => None,
            Some(_) => Some(Next {
                authority: pair("next.ca.crt", "next.ca.key")?,
                leaf: pair("next.tls.crt", "next.tls.key")?,
            }),
        };
        let material = Self { authority: Pair { certificate, key }, others, leaf: pair("tls.crt", "tls.key")?, next };
        let leaf = issue::read(&material.leaf.certificate).map_err(|error| error.to_string())?;
        if !issue::belongs(&material.leaf.key, &leaf) {
            return Err("tls.key does not belong to tls.crt".to_owned());
        }
        Ok(material)
    }

    /// The authorities that the API server is to trust, the one that signs first.
    #[must_use]
    pub fn bundle(&self) -> String {
        let others = self.others.iter().map(String::as_str);
        std::iter::once(self.authority.certificate.as_str()).chain(others).collect()
    }

    /// The Secret's data.
    #[must_use]
    pub fn data(&self) -> BTreeMap<String, ByteString> {
        let Self { authority, others: _, leaf, next } = self;
        let mut data = BTreeMap::from([
            ("ca.crt", self.bundle()),
            ("ca.key", authority.key.clone()),
            ("tls.crt", leaf.certificate.clone()),
            ("tls.key", leaf.key.clone()),
        ]);
        if let Some(Next { authority, leaf }) = next {
            data.extend([
                ("next.ca.crt", authority.certificate.clone()),
                ("next.ca.key", authority.key.clone()),
                ("next.tls.crt", leaf.certificate.clone()),
                ("next.tls.key", leaf.key.clone()),
            ]);
        }
        data.into_iter().map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes()))).collect()
    }

    /// What the state machine judges. `names` are those that the leaf should be for.
    ///
    /// # Errors
    /// A sentence, when a certificate cannot be read.
    pub fn facts(&self, names: &[String], now: i64, rotate_asked: bool) -> Result<Facts, String> {
        let read = |pem: &str| issue::read(pem).map_err(|error| error.to_string());
        let authority = read(&self.authority.certificate)?;
        let leaf = read(&self.leaf.certificate)?;
        let span = |one: &Certificate| (one.not_before, one.not_after);
        Ok(Facts {
            authority: span(&authority),
            leaf: span(&leaf),
            leaf_fits: leaf.names == names
                && issue::verify(&self.leaf.certificate, &self.authority.certificate, now.min(leaf.not_after)).is_ok(),
            next: self.next.is_some(),
            overlap: !self.others.is_empty(),
            rotate_asked,
        })
    }

    /// With a new authority beside the old one, and a leaf of it that is not served yet.
    ///
    /// # Errors
    /// When a certificate cannot be made.
    pub fn begun(self, names: &[String], now: i64, life: Life) -> Result<Self, IssueError> {
        let authority = issue::authority(now, life.authority)?;
        let leaf = issue::leaf(&authority, names, now, life.leaf)?;
        let others = vec![authority.certificate.clone()];
        Ok(Self { others, next: Some(Next { authority, leaf }), ..self })
    }

    /// With what was next; the old authority stays in the bundle.
    #[must_use]
    pub fn switched(self) -> Self {
        match self.next {
            None => self,
            Some(Next { authority, leaf }) => {
                Self { others: vec![self.authority.certificate], authority, leaf, next: None }
            }
        }
    }

    /// Without old authorities.
    #[must_use]
    pub fn dropped(self) -> Self {
        Self { others: Vec::new(), ..self }
    }

    /// With a new leaf of the same authority.
    ///
    /// # Errors
    /// When a certificate cannot be made.
    pub fn renewed(self, names: &[String], now: i64, life: Life) -> Result<Self, IssueError> {
        let leaf = issue::leaf(&self.authority, names, now, life.leaf)?;
        Ok(Self { leaf, ..self })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: i64 = 1_800_000_000;
    const LIFE: Life = Life { authority: Duration::from_secs(365 * 86_400), leaf: Duration::from_secs(30 * 86_400) };

    fn names() -> Vec<String> {
        vec!["walstorage-webhook.walstorage.svc".to_owned()]
    }

    fn secret(material: &Material) -> Secret {
        Secret { data: Some(material.data()), ..Secret::default() }
    }

    #[test]
    fn what_is_written_is_read_back_through_a_whole_rotation() {
        let read = |material: &Material| Material::read(&secret(material)).unwrap();
        let first = Material::create(&names(), NOW, LIFE).unwrap();
        assert_eq!(read(&first), first);
        let begun = first.clone().begun(&names(), NOW + 1, LIFE).unwrap();
        assert_eq!(read(&begun), begun);
        let switched = begun.clone().switched();
        assert_eq!(read(&switched), switched);
        let dropped = switched.clone().dropped();
        assert_eq!(read(&dropped), dropped);

        // At no point is a leaf served that the bundle of the moment, or that of the moment before, does not trust.
        let pairs = [
            (&first, &first),
            (&begun, &first),
            (&begun, &begun),
            (&switched, &begun),
            (&switched, &switched),
            (&dropped, &switched),
            (&dropped, &dropped),
        ];
        for (served, trusted) in pairs {
            assert_eq!(issue::verify(&served.leaf.certificate, &trusted.bundle(), NOW + 2), Ok(()));
        }
        assert!(issue::verify(&dropped.leaf.certificate, &first.bundle(), NOW + 2).is_err());
        assert_eq!(issue::split(&begun.bundle()).len(), 2);
        assert_eq!(dropped.authority, begun.next.unwrap().authority);
    }

    #[test]
    fn a_secret_that_somebody_has_broken_is_told_from_a_good_one() {
        let good = secret(&Material::create(&names(), NOW, LIFE).unwrap());
        let other = Material::create(&names(), NOW, LIFE).unwrap().data();
        let broken = |key: &str, value: Option<&str>| {
            let mut secret = good.clone();
            let data = secret.data.as_mut().unwrap();
            match value {
                None => data.remove(key),
                Some("other") => data.insert(key.to_owned(), other[key].clone()),
                Some(text) => data.insert(key.to_owned(), ByteString(text.as_bytes().to_vec())),
            };
            Material::read(&secret).unwrap_err()
        };
        assert_eq!(broken("ca.key", None), "ca.key is missing");
        assert_eq!(broken("tls.crt", Some(" ")), "tls.crt is missing");
        assert_eq!(broken("ca.key", Some("other")), "ca.key belongs to no certificate of ca.crt");
        assert_eq!(broken("tls.key", Some("other")), "tls.key does not belong to tls.crt");
        assert_eq!(broken("next.ca.crt", Some("x")), "next.ca.key is missing");
        assert_eq!(Material::read(&Secret::default()).unwrap_err(), "ca.key is missing");
    }

    #[test]
    fn a_leaf_for_other_names_or_of_another_authority_does_not_fit() {
        let material = Material::create(&names(), NOW, LIFE).unwrap();
        assert!(material.facts(&names(), NOW, false).unwrap().leaf_fits);
        assert!(!material.facts(&["other.svc".to_owned()], NOW, false).unwrap().leaf_fits);
        let foreign = Material { leaf: Material::create(&names(), NOW, LIFE).unwrap().leaf, ..material };
        assert!(!foreign.facts(&names(), NOW, false).unwrap().leaf_fits);
    }
}
