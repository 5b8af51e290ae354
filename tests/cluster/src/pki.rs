//! The certificates of a cluster: one authority, a certificate for each component, and the kubeconfig files of those
//! that speak to the API server. All keys are P-256, and all of it takes milliseconds.
//!
//! The administrator, the controller manager and the scheduler have tokens instead: the API server verifies a certificate
//! anew with each request, and most requests in a test are theirs.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use serde_json::{Value, json};

const CLUSTER_NAMES: [&str; 5] =
    ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];

/// A folder of certificates, keys and kubeconfig files.
#[derive(Debug)]
pub(crate) struct Pki {
    folder: PathBuf,
}

/// A node that gets certificates.
#[derive(Clone, Debug)]
pub(crate) struct NodeName {
    pub(crate) name: String,
    pub(crate) address: String,
}

impl Pki {
    /// Makes everything for an API server that is reached at `server` (a URL) and is known by `addresses`.
    pub(crate) fn create(folder: &Path, server: &str, addresses: &[String], nodes: &[NodeName]) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let authority = authority()?;
        let pki = Self { folder: folder.to_owned() };
        pki.write("ca.crt", &authority.pem())?;
        pki.write("ca.key", &authority.key().serialize_pem())?;

        let names: Vec<String> = CLUSTER_NAMES.iter().map(ToString::to_string).chain(addresses.to_vec()).collect();
        pki.issue(&authority, "apiserver", "kube-apiserver", None, &names)?;
        let mut tokens = String::new();
        for (file, user, group) in [
            ("admin", "admin", "system:masters"),
            ("controller-manager", "system:kube-controller-manager", ""),
            ("scheduler", "system:kube-scheduler", ""),
        ] {
            let token = uuid::Uuid::new_v4().to_string();
            tokens += &format!("{token},{user},{user},{group}\n");
            pki.kubeconfig(file, server, &json!({"token": token}))?;
        }
        pki.write("tokens.csv", &tokens)?;
        for (file, user, group) in [
            ("kubelet-client", "apiserver-kubelet-client", Some("system:masters")),
            ("proxy", "system:kube-proxy", None),
            ("front-proxy", "front-proxy", None),
        ] {
            pki.issue(&authority, file, user, group, &[])?;
            pki.kubeconfig(file, server, &pki.certificate(file)?)?;
        }
        for NodeName { name, address } in nodes {
            pki.issue(&authority, &format!("{name}-server"), name, None, &[name.clone(), address.clone()])?;
            pki.issue(&authority, name, &format!("system:node:{name}"), Some("system:nodes"), &[])?;
            pki.kubeconfig(name, server, &pki.certificate(name)?)?;
        }
        let accounts = KeyPair::generate()?;
        pki.write("accounts.key", &accounts.serialize_pem())?;
        pki.write("accounts.pub", &accounts.public_key_pem())?;
        Ok(pki)
    }

    fn issue(
        &self,
        authority: &CertifiedIssuer<'_, KeyPair>,
        file: &str,
        user: &str,
        group: Option<&str>,
        names: &[String],
    ) -> Result<()> {
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !names.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, authority)?;
        self.write(&format!("{file}.crt"), &certificate.pem())?;
        self.write(&format!("{file}.key"), &key.serialize_pem())
    }

    fn data(&self, file: &str) -> Result<ByteString> {
        Ok(ByteString(fs::read(self.folder.join(file))?))
    }

    /// A user of a kubeconfig file who has this certificate.
    fn certificate(&self, file: &str) -> Result<Value> {
        Ok(json!({
            "client-certificate-data": self.data(&format!("{file}.crt"))?,
            "client-key-data": self.data(&format!("{file}.key"))?,
        }))
    }

    fn kubeconfig(&self, user: &str, server: &str, known_by: &Value) -> Result<()> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "cluster", "cluster": {
                "server": server,
                "certificate-authority-data": self.data("ca.crt")?,
            }}],
            "users": [{"name": user, "user": known_by}],
            "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": user}}],
            "current-context": "cluster",
        });
        // Every JSON document is one of YAML.
        self.write(&format!("{user}.kubeconfig"), &serde_json::to_string_pretty(&config)?)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        // Whoever reads a key is root on the node.
        let mut to = fs::OpenOptions::new();
        let mut to = to.write(true).create(true).truncate(true).mode(0o600).open(self.folder.join(file))?;
        Ok(to.write_all(text.as_bytes())?)
    }
}

fn authority() -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "walstorage-test-cluster");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}
