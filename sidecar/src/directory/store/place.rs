//! Where a URL's objects are: our own mapping from a storage URL and its options to an address. A pure function; nothing
//! that these do not say is taken from the surroundings, but the region, which is part of how AWS is set up.
//!
//! | URL | without `endpoint` | with it, `path_style` | with it, not `path_style` |
//! |---|---|---|---|
//! | `s3://bucket/p` | `https://bucket.s3.<region>.amazonaws.com` | `<endpoint>/bucket` | `bucket.` before the endpoint's host |
//! | `adls://account.dfs.<cloud>/container/p` | `https://account.blob.<cloud>/container` | `<endpoint>/account/container` | `<endpoint>/container` |
//! | `gcs://bucket/p` | `https://storage.googleapis.com/bucket` | `<endpoint>/bucket` | the same |

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use walstorage_crds::config::UrlOptions;
use walstorage_crds::url::{Scheme, WalUrl};

use super::Environment;
use crate::directory::trouble::{Condition, Trouble};

/// The region of an AWS that says none.
const DEFAULT_REGION: &str = "us-east-1";

/// The kind of store, and what is particular to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Amazon S3, and what speaks like it.
    S3 {
        /// Requests are signed for it.
        region: String,
        /// The bucket's name stands in the host name, which `service` holds.
        virtual_hosted: bool,
    },
    /// Azure Blob Storage, which also serves Data Lake accounts.
    Adls {
        /// The storage account.
        account: String,
        /// Where tokens of its cloud are asked for.
        authority: &'static str,
    },
    /// Google Cloud Storage.
    Gcs,
}

/// Where the objects of one directory are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// As configured.
    pub(super) url: WalUrl,
    /// Of which kind.
    pub(super) kind: Kind,
    /// The address to which bucket and key are added.
    pub(super) service: String,
    /// The bucket's or container's name.
    pub(super) bucket: String,
    /// Before every key: empty, or with `/` at its end.
    pub(super) root: String,
    /// Plain HTTP may be spoken with the store.
    pub(super) allow_http: bool,
    /// Certificates to trust besides the public ones.
    pub(super) ca_file: Option<PathBuf>,
    /// The store is known to have no create-only requests.
    pub(super) unsafe_conditional: bool,
}

impl Place {
    /// The place of a URL; `below` is the writer's path there.
    ///
    /// # Errors
    /// When the options cannot work.
    pub(super) fn new(
        url: &WalUrl,
        below: Option<&str>,
        options: &UrlOptions,
        environment: &Environment,
    ) -> Result<Self, Trouble> {
        let misconfigured = |what: String| Trouble::new(Condition::Misconfigured, format!("{url}: {what}"));
        let (_, rest) = url.as_str().split_once("://").unwrap_or_default();
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let decoded = percent_decode_str(path).decode_utf8_lossy().into_owned();
        let endpoint = options.endpoint.as_deref().map(|endpoint| endpoint.trim_end_matches('/'));
        if let Some(plain) = endpoint.filter(|endpoint| endpoint.starts_with("http://") && !options.allow_http) {
            return Err(misconfigured(format!(
                "the endpoint {plain:?} speaks plain HTTP, which everybody on the way can read: use https, or set allow_http = true"
            )));
        }
        let (kind, service, bucket, prefix) = match url.scheme() {
            Scheme::File => return Err(misconfigured("not a bucket".into())),
            Scheme::S3 => {
                let region = options
                    .region
                    .clone()
                    .or_else(|| environment.get("AWS_REGION"))
                    .or_else(|| environment.get("AWS_DEFAULT_REGION"))
                    .unwrap_or_else(|| DEFAULT_REGION.into());
                let (virtual_hosted, service) = s3_service(host, &region, endpoint, options.path_style);
                (Kind::S3 { region, virtual_hosted }, service, host.to_owned(), decoded)
            }
            Scheme::Adls => {
                let (account, cloud) = host.split_once(".dfs.").unwrap_or((host, ""));
                let (container, prefix) = decoded.split_once('/').unwrap_or((&decoded, ""));
                let service = match endpoint {
                    None => format!("https://{account}.blob.{cloud}"),
                    Some(endpoint) if options.path_style => format!("{endpoint}/{account}"),
                    Some(endpoint) => endpoint.to_owned(),
                };
                let kind = Kind::Adls { account: account.to_owned(), authority: authority(cloud) };
                (kind, service, container.to_owned(), prefix.to_owned())
            }
            Scheme::Gcs => {
                let service = endpoint.unwrap_or("https://storage.googleapis.com").to_owned();
                (Kind::Gcs, service, host.to_owned(), decoded)
            }
        };
        let root = [Some(prefix.as_str()), below].into_iter().flatten().filter(|part| !part.is_empty());
        Ok(Self {
            url: url.clone(),
            kind,
            service,
            bucket,
            root: root.map(|part| format!("{part}/")).collect(),
            allow_http: options.allow_http,
            ca_file: options.ca_file.clone(),
            unsafe_conditional: options.unsafe_conditional,
        })
    }

    /// The store's host, with the port where it is not the usual one.
    pub(super) fn host(&self) -> &str {
        let rest = self.service.split_once("://").map_or(&*self.service, |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default()
    }
}

/// Whether the bucket's name stands in the host, and the address.
fn s3_service(bucket: &str, region: &str, endpoint: Option<&str>, path_style: bool) -> (bool, String) {
    match endpoint {
        Some(endpoint) if path_style => (false, endpoint.to_owned()),
        Some(endpoint) => {
            let (scheme, host) = endpoint.split_once("://").unwrap_or(("https", endpoint));
            (true, format!("{scheme}://{bucket}.{host}"))
        }
        None => {
            let cloud = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
            // A certificate for *.s3.<region>.amazonaws.com does not hold for a name with dots.
            if path_style || bucket.contains('.') {
                (false, format!("https://s3.{region}.{cloud}"))
            } else {
                (true, format!("https://{bucket}.s3.{region}.{cloud}"))
            }
        }
    }
}

/// Where the accounts of an Azure cloud ask for tokens.
fn authority(cloud: &str) -> &'static str {
    match cloud {
        "core.chinacloudapi.cn" => "https://login.chinacloudapi.cn",
        "core.usgovcloudapi.net" => "https://login.microsoftonline.us",
        _ => "https://login.microsoftonline.com",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str, options: &UrlOptions, environment: &[(&str, &str)]) -> Place {
        let url = WalUrl::parse(url).unwrap();
        Place::new(&url, Some("shop/orders.orders-0"), options, &Environment::of(environment)).unwrap()
    }

    fn at(endpoint: &str, path_style: bool) -> UrlOptions {
        UrlOptions { endpoint: Some(endpoint.into()), path_style, ..UrlOptions::default() }
    }

    #[test]
    fn every_scheme_has_its_address() {
        let none = UrlOptions::default();
        let west = UrlOptions { region: Some("us-west-2".into()), ..none.clone() };
        let china = UrlOptions { region: Some("cn-north-1".into()), ..none.clone() };
        let styled = UrlOptions { path_style: true, ..none.clone() };
        let adls = "adls://acc.dfs.core.windows.net/box/p";
        for (url, options, service, bucket) in [
            ("s3://b/p", &none, "https://b.s3.us-east-1.amazonaws.com", "b"),
            ("s3://b/p", &west, "https://b.s3.us-west-2.amazonaws.com", "b"),
            ("s3://b/p", &china, "https://b.s3.cn-north-1.amazonaws.com.cn", "b"),
            ("s3://b.c/p", &none, "https://s3.us-east-1.amazonaws.com", "b.c"),
            ("s3://b/p", &styled, "https://s3.us-east-1.amazonaws.com", "b"),
            ("s3://b/p", &at("https://h:9000/", true), "https://h:9000", "b"),
            ("s3://b/p", &at("https://h:9000", false), "https://b.h:9000", "b"),
            (adls, &none, "https://acc.blob.core.windows.net", "box"),
            ("abfss://box@acc.dfs.core.windows.net/p", &none, "https://acc.blob.core.windows.net", "box"),
            ("adls://acc.dfs.core.chinacloudapi.cn/box/p", &none, "https://acc.blob.core.chinacloudapi.cn", "box"),
            (adls, &at("https://h:1", true), "https://h:1/acc", "box"),
            (adls, &at("https://h:1", false), "https://h:1", "box"),
            ("gs://b/p", &none, "https://storage.googleapis.com", "b"),
            ("gcs://b/p", &at("https://h", true), "https://h", "b"),
        ] {
            let place = place(url, options, &[]);
            assert_eq!((&*place.service, &*place.bucket), (service, bucket), "{url} {options:?}");
            assert_eq!(place.root, "p/shop/orders.orders-0/");
        }
    }

    #[test]
    fn the_region_is_the_options_or_the_environments() {
        let region =
            |options: &UrlOptions, environment: &[(&str, &str)]| match place("s3://b", options, environment).kind {
                Kind::S3 { region, .. } => region,
                other => panic!("{other:?}"),
            };
        let none = UrlOptions::default();
        let west = UrlOptions { region: Some("us-west-2".into()), ..none.clone() };
        assert_eq!(region(&west, &[("AWS_REGION", "eu-west-1")]), "us-west-2");
        assert_eq!(region(&none, &[("AWS_REGION", "eu-west-1"), ("AWS_DEFAULT_REGION", "x")]), "eu-west-1");
        assert_eq!(region(&none, &[("AWS_DEFAULT_REGION", "eu-west-2")]), "eu-west-2");
        assert_eq!(region(&none, &[("AWS_REGION", "")]), "us-east-1");
    }

    #[test]
    fn nothing_else_is_taken_from_the_environment() {
        let hostile = [
            ("AWS_ENDPOINT_URL", "http://evil"),
            ("AWS_ENDPOINT", "http://evil"),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_CONDITIONAL_PUT", "disabled"),
            ("AZURE_STORAGE_ENDPOINT", "http://evil"),
            ("GOOGLE_BASE_URL", "http://evil"),
        ];
        for url in ["s3://b/p", "adls://acc.dfs.core.windows.net/box/p", "gcs://b/p"] {
            let none = UrlOptions::default();
            assert_eq!(place(url, &none, &hostile), place(url, &none, &[]));
        }
    }

    #[test]
    fn roots_are_decoded_and_end_with_a_slash() {
        let none = UrlOptions::default();
        let root = |url: &str, below: Option<&str>| {
            Place::new(&WalUrl::parse(url).unwrap(), below, &none, &Environment::of(&[])).unwrap().root
        };
        assert_eq!(root("s3://b", None), "");
        assert_eq!(root("s3://b", Some("w")), "w/");
        assert_eq!(root("s3://b/a%20b/c", None), "a b/c/");
        assert_eq!(root("adls://acc.dfs.core.windows.net/box", Some("w")), "w/");
    }

    #[test]
    fn plain_http_is_refused_unless_it_is_allowed() {
        let url = WalUrl::parse("s3://b/p").unwrap();
        let environment = Environment::of(&[]);
        let options = at("http://minio:9000", true);
        let refused = Place::new(&url, None, &options, &environment).unwrap_err();
        assert_eq!(refused.condition, Condition::Misconfigured);
        assert!(refused.sentence.contains("\"http://minio:9000\""), "{refused}");
        assert!(refused.sentence.contains("allow_http = true"), "{refused}");
        let allowed = UrlOptions { allow_http: true, ..options };
        assert_eq!(Place::new(&url, None, &allowed, &environment).unwrap().host(), "minio:9000");
    }
}
