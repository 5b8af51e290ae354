//! Which certificates are trusted.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A server that a private authority vouches for: its address, and the authority's certificate.
async fn private_server(running: &mut JoinSet<()>) -> (String, String) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "private");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    running.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not trust it goes away.
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let service = service_fn(|_: ::http::Request<Incoming>| async {
                let answer = ::http::Response::builder().header("etag", "\"1\"");
                Ok::<_, Infallible>(answer.body(Full::<Bytes>::default()).unwrap())
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    });
    (endpoint, authority.pem())
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_it_is_named() {
    let (mut running, dir) = (JoinSet::new(), TempDir::new().unwrap());
    let (endpoint, authority) = private_server(&mut running).await;
    let mut store = store(S3, &endpoint, &dir, brief());
    store.place.allow_http = false;
    let Err(CreateError::Unclear(trouble)) = create(&store).await else { panic!("it is not trusted") };
    assert_eq!(trouble.condition, Condition::Unreachable);
    assert!(trouble.sentence.contains("certificate"), "{trouble}");

    let ca = dir.path().join("ca.crt");
    std::fs::write(&ca, authority).unwrap();
    store.place.ca_file = Some(ca);
    create(&store).await.unwrap();
    assert_eq!(store.trouble(), None);
}
