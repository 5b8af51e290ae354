//! As whom requests are made: found anew before each request, so that a repaired file is enough.
//!
//! In this order: the files of `credentials_dir`; `token_file`; keys in the environment; a token that the environment
//! names; the identity of the task, pod or machine. Of the environment only the names below are read, those by which the
//! clouds' own webhooks and users hand identities to a process.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use walstorage_crds::config::UrlOptions;
use walstorage_crds::url::WalUrl;

use super::Environment;
use super::place::Kind;
use crate::directory::trouble::{Condition, Trouble};

/// Of a session of AWS that gives itself none.
const SESSION: &str = "walstorage";

/// As whom. Not `Debug`: it holds secrets.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Identity {
    /// Keys of AWS.
    Keys { id: String, secret: String, token: Option<String> },
    /// A token that AWS exchanges for keys of a role.
    Role { token_file: PathBuf, role_arn: String, session: String },
    /// The role of an ECS task.
    Task { path: String },
    /// The identity of an EKS pod.
    Pod { uri: String, token_file: PathBuf },
    /// The key of a storage account.
    AccountKey(String),
    /// A shared access signature.
    Sas(String),
    /// An application of Entra.
    Secret { client: String, secret: String, tenant: String },
    /// A token that Entra exchanges.
    Federated { client: String, tenant: String, token_file: PathBuf },
    /// A service account's key file, whole.
    ServiceAccount(String),
    /// A user's file of `gcloud auth application-default login`.
    User(PathBuf),
    /// A token that Google exchanges.
    Pool {
        audience: String,
        token_file: PathBuf,
        /// The URL that gives tokens of the service account to act as.
        account: Option<String>,
        /// The URL that exchanges the token.
        exchange: String,
    },
    /// That of the machine, as its metadata service tells; of several at Azure, which one.
    Machine { client: Option<String> },
}

/// An identity, and where it is from: ends a sentence that begins with "with".
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) identity: Identity,
    pub(super) source: String,
    /// What to do when the store does not take it.
    pub(super) remedy: String,
}

/// What is looked through.
pub(super) struct Sources<'a> {
    pub(super) url: &'a WalUrl,
    pub(super) options: &'a UrlOptions,
    pub(super) environment: &'a Environment,
}

impl Sources<'_> {
    /// Finds out as whom to make requests. Reads files.
    ///
    /// # Errors
    /// When what the options name is not there.
    pub(super) fn find(&self, kind: &Kind) -> Result<Found, Trouble> {
        if let Some(dir) = &self.options.credentials_dir {
            return self.files(kind, dir);
        }
        match kind {
            Kind::S3 { .. } => self.aws(),
            Kind::Adls { .. } => self.azure(),
            Kind::Gcs => self.google(),
        }
    }

    fn files(&self, kind: &Kind, dir: &Path) -> Result<Found, Trouble> {
        let file = |name: &str| self.read(&dir.join(name));
        let lacking = |what: &str| {
            let what = format!("{} has no {what}: put it there; it is read again at once", dir.display());
            self.trouble(Condition::NoCredentials, &what)
        };
        let (identity, names) = match kind {
            Kind::S3 { .. } => {
                let id = file("access_key_id")?.ok_or_else(|| lacking("access_key_id"))?;
                let secret = file("secret_access_key")?.ok_or_else(|| lacking("secret_access_key"))?;
                (Identity::Keys { id, secret, token: file("session_token")? }, "access_key_id and secret_access_key")
            }
            Kind::Adls { .. } => {
                if let Some(key) = file("account_key")? {
                    (Identity::AccountKey(key), "account_key")
                } else if let Some(sas) = file("sas_token")? {
                    (Identity::Sas(sas), "sas_token")
                } else {
                    let client = file("client_id")?.ok_or_else(|| {
                        lacking("account_key, sas_token or client_id with client_secret and tenant_id")
                    })?;
                    let secret = file("client_secret")?.ok_or_else(|| lacking("client_secret beside client_id"))?;
                    let tenant = file("tenant_id")?.ok_or_else(|| lacking("tenant_id beside client_id"))?;
                    (Identity::Secret { client, secret, tenant }, "client_id, client_secret and tenant_id")
                }
            }
            Kind::Gcs => {
                let json = file("service_account.json")?.ok_or_else(|| lacking("service_account.json"))?;
                (Identity::ServiceAccount(json), "service_account.json")
            }
        };
        let known = known(&identity).map(|known| format!(" ({known})")).unwrap_or_default();
        Ok(Found {
            identity,
            source: format!("the credentials in {}{known}", dir.display()),
            remedy: format!("put a valid {names} into {}; it is read again at once", dir.display()),
        })
    }

    fn aws(&self) -> Result<Found, Trouble> {
        let role = self.options.role_arn.clone().or_else(|| self.var("AWS_ROLE_ARN"));
        let session = self.var("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| SESSION.into());
        let exchanged = |token_file: PathBuf, role_arn: String| {
            let source = format!("the token in {} for the role {role_arn}", token_file.display());
            let remedy = format!("let the role {role_arn} trust the token's issuer, subject and audience");
            Found { identity: Identity::Role { token_file, role_arn, session: session.clone() }, source, remedy }
        };
        if let Some(token_file) = self.token_file()? {
            let role_arn = role.ok_or_else(|| {
                self.trouble(Condition::Misconfigured, "token_file needs a role to exchange it for: set role_arn")
            })?;
            return Ok(exchanged(token_file, role_arn));
        }
        if let (Some(id), Some(secret)) = (self.var("AWS_ACCESS_KEY_ID"), self.var("AWS_SECRET_ACCESS_KEY")) {
            let source = format!("AWS_ACCESS_KEY_ID = {id} of the environment");
            let identity = Identity::Keys { id, secret, token: self.var("AWS_SESSION_TOKEN") };
            return Ok(Found {
                identity,
                source,
                remedy: "set another key and restart, or set credentials_dir".into(),
            });
        }
        if let (Some(token_file), Some(role_arn)) = (self.var("AWS_WEB_IDENTITY_TOKEN_FILE"), role) {
            return Ok(exchanged(token_file.into(), role_arn));
        }
        let remedy = "give the task, pod or machine a role that may use the bucket, or set credentials_dir".to_owned();
        if let Some(path) = self.var("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
            return Ok(Found { identity: Identity::Task { path }, source: "the task's role".into(), remedy });
        }
        if let (Some(uri), Some(token_file)) =
            (self.var("AWS_CONTAINER_CREDENTIALS_FULL_URI"), self.var("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"))
        {
            let identity = Identity::Pod { uri, token_file: token_file.into() };
            return Ok(Found { identity, source: "the pod's identity".into(), remedy });
        }
        Ok(Self::machine(None))
    }

    fn azure(&self) -> Result<Found, Trouble> {
        let client = self.var("AZURE_CLIENT_ID");
        let tenant = self.var("AZURE_TENANT_ID");
        let federated = |token_file: PathBuf, client: String, tenant: String| Found {
            source: format!("the token in {} for the client id {client}", token_file.display()),
            remedy: format!(
                "let the application {client} of tenant {tenant} trust the token's issuer, subject and audience"
            ),
            identity: Identity::Federated { client, tenant, token_file },
        };
        let environment = |identity: Identity, what: String| Found {
            identity,
            source: format!("{what} of the environment"),
            remedy: "set another one and restart, or set credentials_dir".into(),
        };
        if let Some(token_file) = self.token_file()? {
            let (Some(client), Some(tenant)) = (client, tenant) else {
                let what = "token_file needs AZURE_CLIENT_ID and AZURE_TENANT_ID in the environment: set both";
                return Err(self.trouble(Condition::Misconfigured, what));
            };
            return Ok(federated(token_file, client, tenant));
        }
        if let Some(key) = self.var("AZURE_STORAGE_ACCOUNT_KEY").or_else(|| self.var("AZURE_STORAGE_KEY")) {
            return Ok(environment(Identity::AccountKey(key), "AZURE_STORAGE_ACCOUNT_KEY".into()));
        }
        if let Some(sas) = self.var("AZURE_STORAGE_SAS_TOKEN") {
            return Ok(environment(Identity::Sas(sas), "AZURE_STORAGE_SAS_TOKEN".into()));
        }
        if let (Some(client), Some(tenant)) = (client.clone(), tenant) {
            if let Some(secret) = self.var("AZURE_CLIENT_SECRET") {
                let source = format!("AZURE_CLIENT_ID = {client}");
                return Ok(environment(Identity::Secret { client, secret, tenant }, source));
            }
            if let Some(token_file) = self.var("AZURE_FEDERATED_TOKEN_FILE") {
                return Ok(federated(token_file.into(), client, tenant));
            }
        }
        Ok(Self::machine(client))
    }

    fn google(&self) -> Result<Found, Trouble> {
        let pool = |audience: String, token_file: PathBuf, account: Option<String>, exchange: Option<String>| Found {
            source: format!("the token in {} for the audience {audience}", token_file.display()),
            remedy: "let the workload identity pool trust the token's issuer, subject and audience".into(),
            identity: Identity::Pool {
                audience,
                token_file,
                account,
                exchange: exchange.unwrap_or_else(|| "https://sts.googleapis.com/v1/token".to_owned()),
            },
        };
        if let Some(token_file) = self.token_file()? {
            let audience = self.options.audience.clone().ok_or_else(|| {
                let what = "token_file needs the provider that exchanges it: set audience = \"//iam.googleapis.com/…\"";
                self.trouble(Condition::Misconfigured, what)
            })?;
            let account = self.options.role_arn.as_ref().map(|account| {
                format!(
                    "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{account}:generateAccessToken"
                )
            });
            return Ok(pool(audience, token_file, account, None));
        }
        let Some(path) = self.var("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from) else {
            return Ok(Self::machine(None));
        };
        let unusable = |why: &str| {
            let what = format!(
                "GOOGLE_APPLICATION_CREDENTIALS = {}: {why}; set credentials_dir, or correct it",
                path.display()
            );
            self.trouble(Condition::NoCredentials, &what)
        };
        let json = self.read(&path)?.ok_or_else(|| unusable("there is no such file"))?;
        let file: GoogleFile = serde_json::from_str(&json).map_err(|error| unusable(&error.to_string()))?;
        let source = format!("GOOGLE_APPLICATION_CREDENTIALS = {}", path.display());
        let remedy = format!("put valid credentials into {}; they are read again at once", path.display());
        match (&*file.kind, file.audience, file.credential_source.and_then(|source| source.file)) {
            ("service_account", ..) => Ok(Found { identity: Identity::ServiceAccount(json), source, remedy }),
            ("authorized_user", ..) => Ok(Found { identity: Identity::User(path), source, remedy }),
            ("external_account", Some(audience), Some(token_file)) => {
                Ok(pool(audience, token_file, file.service_account_impersonation_url, file.token_url))
            }
            (kind, ..) => Err(unusable(&format!(
                "type {kind:?} is not known here (service_account, authorized_user, external_account with a file)"
            ))),
        }
    }

    fn machine(client: Option<String>) -> Found {
        Found {
            identity: Identity::Machine { client },
            source: "the machine's identity (no credentials are configured)".into(),
            remedy: "set credentials_dir, or give the machine an identity that may use the bucket".into(),
        }
    }

    /// The token's file, where one is configured and there.
    fn token_file(&self) -> Result<Option<PathBuf>, Trouble> {
        let Some(path) = &self.options.token_file else { return Ok(None) };
        match self.read(path)? {
            Some(_) => Ok(Some(path.clone())),
            None => {
                let what = format!("token_file {} is not there or empty: have it projected", path.display());
                Err(self.trouble(Condition::NoCredentials, &what))
            }
        }
    }

    fn var(&self, name: &str) -> Option<String> {
        self.environment.get(name)
    }

    /// A small file's text without the white space around it; `None` when it is not there or empty.
    fn read(&self, path: &Path) -> Result<Option<String>, Trouble> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let what = format!("{} cannot be read ({error}): let this process read it", path.display());
                Err(self.trouble(Condition::NoCredentials, &what))
            }
        }
    }

    fn trouble(&self, condition: Condition, what: &str) -> Trouble {
        Trouble::new(condition, format!("{}: {what}", self.url))
    }
}

/// What may be shown of an identity.
fn known(identity: &Identity) -> Option<String> {
    match identity {
        Identity::Keys { id, .. } => Some(format!("access key id {id}")),
        Identity::Secret { client, .. } => Some(format!("client id {client}")),
        Identity::ServiceAccount(json) => {
            serde_json::from_str::<GoogleFile>(json).ok()?.client_email.map(|email| format!("service account {email}"))
        }
        _ => None,
    }
}

/// What is read here of a file of Google's.
#[derive(Deserialize)]
struct GoogleFile {
    #[serde(rename = "type", default)]
    kind: String,
    client_email: Option<String>,
    audience: Option<String>,
    service_account_impersonation_url: Option<String>,
    token_url: Option<String>,
    credential_source: Option<CredentialSource>,
}

#[derive(Deserialize)]
struct CredentialSource {
    file: Option<PathBuf>,
}
