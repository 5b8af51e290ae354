//! Who a sidecar is to a store that it has no key for: the identity of its pod, its machine, or one that a token was exchanged
//! for, in three clouds. What is asked of whom is looked at by a server of our own; real clouds have not seen it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use tempfile::TempDir;
use walstorage_sidecar::proto::Status;
use walstorage_tests::emulators::issuer::{Issuer, SUBJECT};
use walstorage_tests::harness::{Setup, Sidecar};

const S3: &str = "s3://bucket-1/wal";
const AZURE: &str = "adls://account1.dfs.core.windows.net/container-1/wal";
const GOOGLE: &str = "gs://bucket-1/wal";

/// One way to an identity.
struct Way {
    url: &'static str,
    /// `{at}` stands for the issuer, `{dir}` for a folder with the files below and the workload's token in `token`.
    environment: &'static [(&'static str, &'static str)],
    options: &'static str,
    files: &'static [(&'static str, &'static str)],
    /// What the store sees.
    presents: &'static str,
    session: Option<&'static str>,
    /// What is said where nobody is given an identity.
    says: &'static str,
}

const WAYS: [Way; 9] = [
    Way {
        url: S3,
        environment: &[
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "{dir}/token"),
            ("AWS_ROLE_ARN", "arn:aws:iam::1:role/wal"),
            ("AWS_ENDPOINT_URL_STS", "{at}"),
        ],
        options: "",
        files: &[],
        presents: "Credential=ASIAROLE/",
        session: Some("session-ROLE"),
        says: "arn:aws:iam::1:role/wal",
    },
    Way {
        url: S3,
        environment: &[("AWS_ENDPOINT_URL_STS", "{at}")],
        options: "token_file = \"{dir}/token\"\nrole_arn = \"arn:aws:iam::1:role/wal\"",
        files: &[],
        presents: "Credential=ASIAROLE/",
        session: Some("session-ROLE"),
        says: "arn:aws:iam::1:role/wal",
    },
    Way {
        url: S3,
        environment: &[
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "{at}/pod"),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "{dir}/token"),
        ],
        options: "",
        files: &[],
        presents: "Credential=ASIAPOD/",
        session: Some("session-POD"),
        says: "the pod's identity",
    },
    Way {
        url: S3,
        environment: &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "{at}/")],
        options: "",
        files: &[],
        presents: "Credential=ASIAMACHINE/",
        session: Some("session-MACHINE"),
        says: "the machine's identity",
    },
    Way {
        url: AZURE,
        environment: &[("AZURE_AUTHORITY_HOST", "{at}/")],
        options: "credentials_dir = \"{dir}\"",
        files: &[("client_id", "client-1"), ("client_secret", "a secret"), ("tenant_id", "tenant-1\n")],
        presents: "Bearer of-a-secret",
        session: None,
        says: "client id client-1",
    },
    Way {
        url: AZURE,
        environment: &[
            ("AZURE_CLIENT_ID", "client-1"),
            ("AZURE_TENANT_ID", "tenant-1"),
            ("AZURE_FEDERATED_TOKEN_FILE", "{dir}/token"),
            ("AZURE_AUTHORITY_HOST", "{at}/"),
        ],
        options: "",
        files: &[],
        presents: "Bearer of-a-workload",
        session: None,
        says: "the client id client-1",
    },
    Way {
        url: AZURE,
        environment: &[("IDENTITY_ENDPOINT", "{at}/machine")],
        options: "",
        files: &[],
        presents: "Bearer of-a-machine",
        session: None,
        says: "the machine's identity",
    },
    Way {
        url: GOOGLE,
        environment: &[("GOOGLE_APPLICATION_CREDENTIALS", "{dir}/pool.json")],
        options: "",
        files: &[(
            "pool.json",
            r#"{"type": "external_account", "audience": "//iam.googleapis.com/pool-1", "token_url": "{at}/pool",
                "credential_source": {"file": "{dir}/token"}}"#,
        )],
        presents: "Bearer of-a-pool",
        session: None,
        says: "//iam.googleapis.com/pool-1",
    },
    Way {
        url: GOOGLE,
        environment: &[("GOOGLE_APPLICATION_CREDENTIALS", "{dir}/pool.json")],
        options: "",
        files: &[(
            "pool.json",
            r#"{"type": "external_account", "audience": "//iam.googleapis.com/pool-1", "token_url": "{at}/pool",
                "service_account_impersonation_url":
                "{at}/v1/projects/-/serviceAccounts/wal@shop.iam:generateAccessToken",
                "credential_source": {"file": "{dir}/token"}}"#,
        )],
        presents: "Bearer of-an-account",
        session: None,
        says: "//iam.googleapis.com/pool-1",
    },
];

/// A sidecar that takes this way, started.
fn taken(way: &Way, issuer: &Issuer, folder: &TempDir) -> Sidecar {
    let fill =
        |text: &str| text.replace("{at}", &issuer.identities).replace("{dir}", &folder.path().display().to_string());
    std::fs::write(folder.path().join("token"), SUBJECT).unwrap();
    std::fs::write(folder.path().join("ca.pem"), &issuer.certificate).unwrap();
    for (name, text) in way.files {
        std::fs::write(folder.path().join(name), fill(text)).unwrap();
    }
    let mut setup = Setup::new(0);
    setup.urls(&[way.url.to_owned()]);
    setup.table(&format!(
        "[storage.wal_config.url_options.\"{}\"]\nendpoint = \"{}\"\nca_file = \"{}\"\n{}\n",
        way.url,
        issuer.store,
        fill("{dir}/ca.pem"),
        fill(way.options)
    ));
    setup.environment = way.environment.iter().map(|(name, value)| ((*name).to_owned(), fill(value))).collect();
    let mut sidecar = Sidecar::new(setup);
    sidecar.start();
    sidecar
}

/// What a sidecar says of its bucket, once it says something.
async fn says(sidecar: &mut Sidecar) -> String {
    let says = |status: &Status| status.directories.iter().any(|directory| !directory.reason.is_empty());
    sidecar.wait_status("it to say what is wrong", says).await.directories[0].reason.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_way_to_an_identity_ends_in_what_the_store_is_shown() {
    for way in &WAYS {
        let (issuer, folder) = (Issuer::start().await, TempDir::new().unwrap());
        let mut sidecar = taken(way, &issuer, &folder);
        // The store lets nobody do anything: what is said then is that a right is missing.
        let why = says(&mut sidecar).await;
        let (authorization, session) =
            issuer.presented().unwrap_or_else(|| panic!("{}: not asked: {why}", way.presents));
        assert!(authorization.contains(way.presents), "{authorization}: {why}");
        assert_eq!(session.as_deref(), way.session, "{why}");
        assert!(why.contains("may not"), "{}: {why}", way.presents);
        sidecar.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_that_is_refused_is_said_with_whose_it_is_and_the_store_is_not_asked() {
    for way in &WAYS {
        let (issuer, folder) = (Issuer::start().await, TempDir::new().unwrap());
        issuer.refuse();
        let mut sidecar = taken(way, &issuer, &folder);
        let why = says(&mut sidecar).await;
        assert!(why.contains(way.says), "{}: {why}", way.presents);
        assert_eq!(issuer.presented(), None, "{why}");
        sidecar.stop().await;
    }
}
