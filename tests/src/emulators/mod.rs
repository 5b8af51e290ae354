//! Object stores on this machine: moto for S3, Azurite for Azure, a server of our own for Google, and a proxy before any of
//! them that loses answers and worse.
//!
//! 1. An emulator serves on a free port, from memory; each test has a bucket of its own there.
//! 2. Its process ends with the test's, whatever becomes of that: it serves until its standard input ends.

pub mod gate;
pub mod google;
pub mod issuer;
pub mod proxy;
pub mod tls;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::net::TcpStream;
use walstorage_crds::config::UrlOptions;
use walstorage_crds::url::{Scheme, WalUrl};
use walstorage_sidecar::directory::store::{BucketStore, Environment, Limits};

use self::google::Google;
use crate::harness::Setup;
use crate::harness::skip::skipped;

/// A cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon's, by moto.
    S3,
    /// Microsoft's, by Azurite.
    Azure,
    /// Google's, by our own.
    Google,
}

/// Makes a test for each cloud of an async function of [`Emulated`]; each is a module named after the cloud.
#[macro_export]
macro_rules! on_every_cloud {
    ($($test:ident)*) => {
        $crate::on_every_cloud!(s3 S3, $($test)*);
        $crate::on_every_cloud!(azure Azure, $($test)*);
        $crate::on_every_cloud!(google Google, $($test)*);
    };
    ($name:ident $cloud:ident, $($test:ident)*) => {
        mod $name {
            use $crate::emulators::{Cloud, Emulated};
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    if let Some(emulated) = Emulated::new(stringify!($test), Cloud::$cloud).await {
                        super::$test(&emulated).await;
                    }
                }
            )*
        }
    };
}

/// The accounts that Azurite knows: its own, and that of the examples.
const ACCOUNTS: [&str; 2] = ["devstoreaccount1", "myaccount"];
/// The key of both.
const ACCOUNT_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A running emulator of another make; its input is kept open.
struct Process {
    address: String,
    _child: Child,
}

impl Process {
    /// Starts it and waits for the line in which it says where it serves.
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut said = Vec::new();
        let address = loop {
            let Some(Ok(line)) = lines.next() else { panic!("{command:?} ended: {said:#?}") };
            // Azurite names the port that was asked for first, which is none.
            if let Some((_, port)) = line.split_once("http://127.0.0.1:")
                && !line.contains("is starting")
            {
                break format!("127.0.0.1:{}", port.trim());
            }
            said.push(line);
        };
        // What it says from now on is of no interest, but a full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { address, _child: child }
    }
}

/// Below the repository's root.
fn of_repository(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

/// The address of moto; `None` where `make test` has not installed it.
fn moto() -> Option<&'static str> {
    static MOTO: OnceLock<Option<Process>> = OnceLock::new();
    let start = || {
        let python = std::env::var_os("WALSTORAGE_PYTHON")?;
        let mut command = Command::new(python);
        command.arg(of_repository("tests/python/moto_server.py"));
        Some(Process::start(command))
    };
    Some(&MOTO.get_or_init(start).as_ref()?.address)
}

/// The address of Azurite; `None` where `make test` has not installed it.
fn azurite() -> Option<&'static str> {
    static AZURITE: OnceLock<Option<Process>> = OnceLock::new();
    let start = || {
        let modules = std::env::var_os("WALSTORAGE_NODE_MODULES").filter(|path| !path.is_empty())?;
        let mut command = Command::new("node");
        let accounts = ACCOUNTS.map(|account| format!("{account}:{ACCOUNT_KEY}")).join(";");
        command.arg(of_repository("tests/node/azurite.js")).env("NODE_PATH", modules).env("AZURITE_ACCOUNTS", accounts);
        Some(Process::start(command))
    };
    Some(&AZURITE.get_or_init(start).as_ref()?.address)
}

/// A bucket of its own at an emulator, and the credentials for it.
pub struct Emulated {
    /// Whose.
    pub cloud: Cloud,
    /// Where the emulator serves.
    pub address: String,
    /// The bucket's name.
    pub bucket: String,
    /// Whose it is, where it is Azure's.
    account: &'static str,
    /// The folder of the credentials; none for Google, whose metadata server is asked.
    pub credentials: TempDir,
    google: Option<Google>,
}

impl Emulated {
    /// A new bucket; `None`, said loudly, where the emulator is not installed.
    pub async fn new(test: &str, cloud: Cloud) -> Option<Self> {
        static BUCKETS: AtomicU64 = AtomicU64::new(0);
        let bucket = format!("bucket-{}", BUCKETS.fetch_add(1, Ordering::Relaxed));
        Self::named(test, cloud, ACCOUNTS[0], &bucket).await
    }

    /// The bucket of a URL, which is new.
    pub async fn of_url(test: &str, url: &WalUrl) -> Option<Self> {
        let mut parts = url.as_str().split('/').skip(2);
        let host = parts.next().unwrap_or_default();
        let (cloud, bucket) = match url.scheme() {
            Scheme::S3 => (Cloud::S3, host),
            Scheme::Gcs => (Cloud::Google, host),
            Scheme::Adls => (Cloud::Azure, parts.next().unwrap_or_default()),
            Scheme::File => panic!("{url} is no bucket"),
        };
        let account = ACCOUNTS.into_iter().find(|account| host.starts_with(account)).unwrap_or(ACCOUNTS[0]);
        Self::named(test, cloud, account, bucket).await
    }

    async fn named(test: &str, cloud: Cloud, account: &'static str, bucket: &str) -> Option<Self> {
        let bucket = bucket.to_owned();
        let credentials = TempDir::new().expect("a folder");
        let file = |name: &str, text: &str| std::fs::write(credentials.path().join(name), text).expect("a file");
        let (address, google) = match cloud {
            Cloud::S3 => (moto().map(str::to_owned), None),
            Cloud::Azure => (azurite().map(str::to_owned), None),
            Cloud::Google => {
                let google = Google::start(&bucket).await;
                (Some(google.address.clone()), Some(google))
            }
        };
        let Some(address) = address else {
            skipped(
                test,
                &format!("no emulator of {cloud:?}: WALSTORAGE_PYTHON and WALSTORAGE_NODE_MODULES say where"),
            );
            return None;
        };
        let request = match cloud {
            Cloud::S3 => {
                file("access_key_id", "AKIATEST");
                file("secret_access_key", "secret");
                Some(Request::put(format!("http://{address}/{bucket}")))
            }
            Cloud::Azure => {
                file("account_key", ACCOUNT_KEY);
                Some(create_container(&address, account, &bucket))
            }
            Cloud::Google => None,
        };
        if let Some(request) = request {
            let status = send(&address, request.body(Full::default()).expect("a request")).await;
            assert!(status.is_success(), "{cloud:?} makes no bucket: {status}");
        }
        Some(Self { cloud, address, bucket, account, credentials, google })
    }

    /// The URL of a path in the bucket.
    #[must_use]
    pub fn url(&self, path: &str) -> WalUrl {
        let Self { bucket, account, .. } = self;
        let url = match self.cloud {
            Cloud::S3 => format!("s3://{bucket}/{path}"),
            Cloud::Azure => format!("adls://{account}.dfs.core.windows.net/{bucket}/{path}"),
            Cloud::Google => format!("gs://{bucket}/{path}"),
        };
        WalUrl::parse(&url).expect("a URL")
    }

    /// What `config.toml` says of a URL whose store is at an address.
    #[must_use]
    pub fn options(&self, url: &WalUrl, address: &str) -> String {
        let credentials = match self.cloud {
            Cloud::Google => String::new(),
            Cloud::S3 | Cloud::Azure => {
                format!("credentials_dir = {:?}\n", self.credentials.path().display().to_string())
            }
        };
        format!(
            "[storage.wal_config.url_options.\"{url}\"]\nendpoint = \"http://{address}\"\nallow_http = true\n{credentials}"
        )
    }

    /// A sidecar without a disk, with a path of the bucket reached at `address` for its only URL.
    #[must_use]
    pub fn only_url(&self, path: &str, address: &str) -> Setup {
        let mut setup = Setup::new(0);
        let url = self.url(path);
        setup.urls(&[url.to_string()]);
        setup.add("writer_id = \"shop/orders.orders-0\"");
        setup.table(&self.options(&url, address));
        setup.environment = self.environment();
        setup
    }

    /// The environment of a process that reaches it.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        self.metadata().map(|metadata| ("GCE_METADATA_HOST".to_owned(), metadata)).into_iter().collect()
    }

    /// Where tokens are asked for. Another name than the store's: who is asked is told from the store by it.
    fn metadata(&self) -> Option<String> {
        self.google.as_ref().map(|google| google.address.replace("127.0.0.1", "localhost"))
    }

    /// A path of the bucket through the product's own driver, at the emulator or at something before it.
    #[must_use]
    pub fn store(&self, url: &WalUrl, address: &str, limits: Limits) -> BucketStore {
        let options = UrlOptions {
            endpoint: Some(format!("http://{address}")),
            path_style: true,
            allow_http: true,
            credentials_dir: (self.cloud != Cloud::Google).then(|| self.credentials.path().to_owned()),
            ..UrlOptions::default()
        };
        let metadata = self.metadata();
        let environment = Environment::of(&[("GCE_METADATA_HOST", metadata.as_deref().unwrap_or_default())]);
        BucketStore::new(url, Some("shop/orders.orders-0"), &options, environment, limits).expect("a store")
    }

    /// The emulator of Google, for what only it can do.
    #[must_use]
    pub const fn google(&self) -> Option<&Google> {
        self.google.as_ref()
    }
}

/// The driver's limits behind the proxy: it waits for no one long, and lists page by page.
#[must_use]
pub fn impatient() -> Limits {
    Limits {
        answer: Duration::from_secs(1),
        first_wait: Duration::from_millis(2),
        longest_wait: Duration::from_millis(20),
        page: Some(7),
        ..Limits::default()
    }
}

async fn send(address: &str, request: Request<Full<Bytes>>) -> hyper::StatusCode {
    let stream = TcpStream::connect(address).await.expect("the emulator listens");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.expect("an answer");
    let status = response.status();
    let body = response.into_body().collect().await.expect("all of it").to_bytes();
    if !status.is_success() {
        eprintln!("{}", String::from_utf8_lossy(&body));
    }
    connection.abort();
    status
}

/// The driver makes no containers, and Azurite makes one only for who signs.
fn create_container(address: &str, account: &str, container: &str) -> hyper::http::request::Builder {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    let (date, version) = ("Sun, 29 Nov 2026 00:00:00 GMT", "2021-08-06");
    let path = format!("/{account}/{container}");
    let headers = format!("x-ms-date:{date}\nx-ms-version:{version}\n");
    let text = format!("PUT\n\n\n\n\n\n\n\n\n\n\n\n{headers}/{account}{path}\nrestype:container");
    let key = STANDARD.decode(ACCOUNT_KEY).expect("base64");
    let signature = STANDARD.encode(hmac_sha256(&key, text.as_bytes()));
    Request::put(format!("http://{address}{path}?restype=container"))
        .header("host", address)
        .header("x-ms-date", date)
        .header("x-ms-version", version)
        .header("authorization", format!("SharedKey {account}:{signature}"))
}

/// RFC 2104, for keys of at most a block.
fn hmac_sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
    let padded = |pad: u8| {
        let mut block = [pad; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().to_vec()
}
