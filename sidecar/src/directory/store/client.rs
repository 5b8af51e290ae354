//! The client of a place, as somebody: explicit builders of `object_store`, which are told everything and look for nothing
//! themselves.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::{AzureAuthorizer, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::client::{HttpError, HttpErrorKind, HttpRequest, HttpRequestBody};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::list::PaginatedListStore;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt as _, RetryConfig};

use super::Environment;
use super::credentials::Identity;
use super::google::{Source, Tokens};
use super::http::Transport;
use super::place::{Kind, Place};

/// What is needed of a store.
pub(super) trait Objects: ObjectStore + PaginatedListStore {}

impl<T: ObjectStore + PaginatedListStore> Objects for T {}

/// A client of one place.
pub(super) struct Client {
    /// For everything but deletions at Azure.
    pub(super) objects: Arc<dyn Objects>,
    /// There, `object_store` deletes in batches only, whose answers hide what became of each.
    azure: Option<Azure>,
}

struct Azure {
    store: Arc<MicrosoftAzure>,
    http: object_store::client::HttpClient,
    account: String,
    /// To which a key is added.
    container: String,
}

/// Nothing is ever repeated in there: what to repeat, and when, is for those to say who know what is at stake.
fn never() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: 0, retry_timeout: Duration::ZERO }
}

impl Client {
    /// Makes a client; sends nothing.
    ///
    /// # Errors
    /// When the credentials cannot be what they should be.
    pub(super) fn new(
        place: &Place,
        identity: &Identity,
        transport: &Transport,
        environment: &Environment,
    ) -> object_store::Result<Self> {
        let options = ClientOptions::new().with_allow_http(place.allow_http);
        match &place.kind {
            Kind::S3 { region, virtual_hosted } => {
                let builder = AmazonS3Builder::new()
                    .with_bucket_name(&place.bucket)
                    .with_region(region)
                    .with_endpoint(&place.service)
                    .with_virtual_hosted_style_request(*virtual_hosted)
                    .with_conditional_put(S3ConditionalPut::ETagMatch)
                    .with_disable_bulk_delete(true)
                    .with_retry(never())
                    .with_client_options(options)
                    .with_http_connector(transport.clone());
                let objects = as_aws(builder, identity, region, environment).build()?;
                Ok(Self { objects: Arc::new(objects), azure: None })
            }
            Kind::Adls { account, authority } => {
                let authority = environment.get("AZURE_AUTHORITY_HOST").unwrap_or_else(|| (*authority).to_owned());
                // The tenant's path is put behind it with a slash of its own.
                let authority = authority.trim_end_matches('/');
                let builder = MicrosoftAzureBuilder::new()
                    .with_account(account)
                    .with_container_name(&place.bucket)
                    .with_endpoint(place.service.clone())
                    .with_authority_host(authority)
                    .with_retry(never())
                    .with_client_options(options)
                    .with_http_connector(transport.clone());
                let store = Arc::new(as_azure(builder, identity, environment).build()?);
                let azure = Azure {
                    store: Arc::clone(&store),
                    http: transport.http_client(place.allow_http),
                    account: account.clone(),
                    container: format!("{}/{}", place.service, encode(&place.bucket)),
                };
                Ok(Self { objects: store, azure: Some(azure) })
            }
            Kind::Gcs => {
                let builder = GoogleCloudStorageBuilder::new()
                    .with_bucket_name(&place.bucket)
                    .with_base_url(&place.service)
                    .with_retry(never())
                    .with_client_options(options)
                    .with_http_connector(transport.clone());
                let objects = as_google(builder, identity, transport, place.allow_http, environment).build()?;
                Ok(Self { objects: Arc::new(objects), azure: None })
            }
        }
    }

    /// Deletes an object by one request of its own.
    pub(super) async fn delete(&self, at: &Path) -> object_store::Result<()> {
        match &self.azure {
            None => self.objects.delete(at).await,
            Some(azure) => azure.delete(at).await,
        }
    }
}

impl Azure {
    async fn delete(&self, at: &Path) -> object_store::Result<()> {
        let generic = |source| object_store::Error::Generic { store: "MicrosoftAzure", source };
        let credential = self.store.credentials().get_credential().await?;
        let mut request: HttpRequest = http::Request::builder()
            .method(Method::DELETE)
            .uri(format!("{}/{}", self.container, encode(at.as_ref())))
            .body(HttpRequestBody::empty())
            .map_err(|error| generic(Box::new(HttpError::new(HttpErrorKind::Unknown, error))))?;
        AzureAuthorizer::new(&credential, &self.account).try_authorize(&mut request)?;
        self.http.execute(request).await.map_err(|error| generic(Box::new(error)))?;
        Ok(())
    }
}

/// A key as it stands in a URL.
fn encode(key: &str) -> String {
    const SET: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
    percent_encoding::utf8_percent_encode(key, SET).to_string()
}

fn as_aws(builder: AmazonS3Builder, identity: &Identity, region: &str, environment: &Environment) -> AmazonS3Builder {
    use AmazonS3ConfigKey as Key;
    match identity {
        Identity::Keys { id, secret, token } => {
            let builder = builder.with_access_key_id(id).with_secret_access_key(secret);
            match token {
                Some(token) => builder.with_token(token),
                None => builder,
            }
        }
        Identity::Role { token_file, role_arn, session } => {
            let cloud = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
            let sts =
                environment.get("AWS_ENDPOINT_URL_STS").unwrap_or_else(|| format!("https://sts.{region}.{cloud}"));
            builder
                .with_config(Key::WebIdentityTokenFile, token_file.to_string_lossy())
                .with_config(Key::RoleArn, role_arn)
                .with_config(Key::RoleSessionName, session)
                .with_config(Key::StsEndpoint, sts)
        }
        Identity::Task { path } => builder.with_config(Key::ContainerCredentialsRelativeUri, path),
        Identity::Pod { uri, token_file } => builder
            .with_config(Key::ContainerCredentialsFullUri, uri)
            .with_config(Key::ContainerAuthorizationTokenFile, token_file.to_string_lossy()),
        // The machine's is what is asked for when nothing else was said.
        _ => match environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") {
            Some(endpoint) => builder.with_metadata_endpoint(endpoint.trim_end_matches('/')),
            None => builder,
        },
    }
}

fn as_azure(builder: MicrosoftAzureBuilder, identity: &Identity, environment: &Environment) -> MicrosoftAzureBuilder {
    match identity {
        Identity::AccountKey(key) => builder.with_access_key(key),
        Identity::Sas(sas) => builder.with_config(object_store::azure::AzureConfigKey::SasKey, sas),
        Identity::Secret { client, secret, tenant } => builder.with_client_secret_authorization(client, secret, tenant),
        Identity::Federated { client, tenant, token_file } => builder
            .with_client_id(client)
            .with_tenant_id(tenant)
            .with_federated_token_file(token_file.to_string_lossy()),
        Identity::Machine { client: Some(client) } => machine(builder, environment).with_client_id(client),
        _ => machine(builder, environment),
    }
}

fn machine(builder: MicrosoftAzureBuilder, environment: &Environment) -> MicrosoftAzureBuilder {
    match environment.get("IDENTITY_ENDPOINT").or_else(|| environment.get("MSI_ENDPOINT")) {
        Some(endpoint) => builder.with_msi_endpoint(endpoint),
        None => builder,
    }
}

fn as_google(
    builder: GoogleCloudStorageBuilder,
    identity: &Identity,
    transport: &Transport,
    allow_http: bool,
    environment: &Environment,
) -> GoogleCloudStorageBuilder {
    match identity {
        Identity::ServiceAccount(json) => builder.with_service_account_key(json),
        Identity::User(path) => builder.with_application_credentials(path.to_string_lossy()),
        Identity::Pool { audience, token_file, account, exchange } => {
            let source = Source::Pool {
                audience: audience.clone(),
                token_file: token_file.clone(),
                account: account.clone(),
                exchange: exchange.clone(),
            };
            builder.with_credentials(Arc::new(Tokens::new(source, transport.http_client(allow_http))))
        }
        _ => {
            let host = environment.get("GCE_METADATA_HOST").unwrap_or_else(|| "metadata.google.internal".into());
            let source = Source::Machine { address: format!("http://{host}") };
            builder.with_credentials(Arc::new(Tokens::new(source, transport.http_client(true))))
        }
    }
}
