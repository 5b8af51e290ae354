//! Tokens of Google for those who have no key: the machine's, from its metadata server, and a workload identity pool's, in
//! exchange for a token in a file. The former `object_store` would have too, but only after looking into the home folder.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request};
use object_store::CredentialProvider;
use object_store::client::{HttpClient, HttpError, HttpErrorKind, HttpRequestBody};
use object_store::gcp::GcpCredential;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;

const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
/// A token is replaced when it lasts no longer than this; one that cannot be is used to its end.
const SPARE: Duration = Duration::from_secs(5 * 60);

/// Where tokens are from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A metadata server.
    Machine {
        /// Its address.
        address: String,
    },
    /// The exchange of a token.
    Pool {
        /// The pool's provider.
        audience: String,
        /// The token; read for each exchange.
        token_file: PathBuf,
        /// The URL that gives tokens of the service account to act as.
        account: Option<String>,
        /// The URL that exchanges.
        exchange: String,
    },
}

/// A token, until it expires.
#[derive(Debug)]
pub(super) struct Tokens {
    source: Source,
    http: HttpClient,
    last: Mutex<Option<(Arc<GcpCredential>, Instant)>>,
}

#[derive(Deserialize)]
struct Token {
    #[serde(alias = "accessToken")]
    access_token: String,
    /// In seconds; a service account's says a time, and is asked for an hour.
    expires_in: Option<u64>,
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

impl Tokens {
    pub(super) fn new(source: Source, http: HttpClient) -> Self {
        Self { source, http, last: Mutex::new(None) }
    }

    async fn fetch(&self) -> Result<Token, Failed> {
        match &self.source {
            Source::Machine { address } => {
                let path = "computeMetadata/v1/instance/service-accounts/default/token";
                let request = Request::get(format!("{address}/{path}")).header("Metadata-Flavor", "Google");
                self.ask(request, HttpRequestBody::empty()).await
            }
            Source::Pool { audience, token_file, account, exchange } => {
                let subject = tokio::fs::read_to_string(token_file).await?;
                let body = json!({
                    "grantType": "urn:ietf:params:oauth:grant-type:token-exchange",
                    "requestedTokenType": "urn:ietf:params:oauth:token-type:access_token",
                    "subjectTokenType": "urn:ietf:params:oauth:token-type:jwt",
                    "subjectToken": subject.trim(),
                    "audience": audience,
                    "scope": SCOPE,
                });
                let token = self.post(exchange, None, &body).await?;
                let Some(url) = account else { return Ok(token) };
                self.post(url, Some(&token.access_token), &json!({"scope": [SCOPE], "lifetime": "3600s"})).await
            }
        }
    }

    async fn post(&self, url: &str, bearer: Option<&str>, body: &serde_json::Value) -> Result<Token, Failed> {
        let mut request = Request::builder().method(Method::POST).uri(url).header(CONTENT_TYPE, "application/json");
        if let Some(bearer) = bearer {
            request = request.header(AUTHORIZATION, format!("Bearer {bearer}"));
        }
        self.ask(request, body.to_string().into()).await
    }

    async fn ask(&self, request: http::request::Builder, body: HttpRequestBody) -> Result<Token, Failed> {
        let request = request.body(body).map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let answer = self.http.execute(request).await?.into_body().bytes().await?;
        Ok(serde_json::from_slice(&answer)?)
    }
}

#[async_trait]
impl CredentialProvider for Tokens {
    type Credential = GcpCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<GcpCredential>> {
        let mut last = self.last.lock().await;
        let now = Instant::now();
        if let Some((credential, _)) = last.as_ref().filter(|(_, until)| *until > now + SPARE) {
            return Ok(Arc::clone(credential));
        }
        match self.fetch().await {
            Ok(Token { access_token, expires_in }) => {
                let credential = Arc::new(GcpCredential { bearer: access_token });
                *last = Some((Arc::clone(&credential), now + Duration::from_secs(expires_in.unwrap_or(3600))));
                Ok(credential)
            }
            Err(error) => match last.as_ref().filter(|(_, until)| *until > now) {
                Some((credential, _)) => Ok(Arc::clone(credential)),
                None => Err(object_store::Error::Generic { store: "GCS", source: error }),
            },
        }
    }
}
