//! AdmissionReview v1 as raw JSON: what is asked, and the answers.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use json_patch::Patch;
use serde_json::{Value, json};

use super::json::text;

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Review {
    /// Names the answer.
    pub uid: String,
    /// Of the object that is to be created; it may stand in no namespace itself yet.
    pub namespace: String,
    /// Nothing may be kept of it.
    pub dry_run: bool,
    /// A pod is to be created: nothing else is asked by the chart's configuration.
    pub creates_pod: bool,
    /// The object.
    pub object: Value,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// As it is.
    Admit {
        /// For whoever applied it; may be empty.
        warning: &'static str,
    },
    /// With these changes.
    Patch(Patch),
    /// Not, and why.
    Refuse(String),
    /// Nobody can say now; the sentence is for whoever tries.
    Fail(String),
}

impl Review {
    /// Reads a request's body.
    ///
    /// # Errors
    /// A sentence, when it is no AdmissionReview of version 1.
    pub fn read(body: &[u8]) -> Result<Self, String> {
        let mut review: Value = serde_json::from_slice(body).map_err(|error| format!("not JSON: {error}"))?;
        let (version, kind) = (text(&review, "/apiVersion"), text(&review, "/kind"));
        if (version, kind) != (Some("admission.k8s.io/v1"), Some("AdmissionReview")) {
            return Err("not an AdmissionReview of admission.k8s.io/v1".to_owned());
        }
        let uid = text(&review, "/request/uid").ok_or("request.uid is missing")?.to_owned();
        let asked = |pointer| text(&review, pointer).unwrap_or_default();
        let pods = (asked("/request/resource/group"), asked("/request/resource/resource")) == ("", "pods");
        let creates_pod = pods && asked("/request/operation") == "CREATE" && asked("/request/subResource").is_empty();
        let namespace = asked("/request/namespace").to_owned();
        let dry_run = review.pointer("/request/dryRun").and_then(Value::as_bool).unwrap_or(false);
        let object = review.pointer_mut("/request/object").map(Value::take).unwrap_or_default();
        Ok(Self { uid, namespace, dry_run, creates_pod, object })
    }
}

impl Answer {
    /// The answer's body.
    #[must_use]
    pub fn write(&self, uid: &str) -> Value {
        let response = match self {
            Self::Admit { warning } => {
                let warnings: Vec<_> = Some(*warning).filter(|warning| !warning.is_empty()).into_iter().collect();
                json!({"uid": uid, "allowed": true, "warnings": warnings})
            }
            Self::Patch(patch) if patch.0.is_empty() => json!({"uid": uid, "allowed": true}),
            Self::Patch(patch) => {
                let patch = serde_json::to_vec(patch).unwrap_or_default();
                json!({"uid": uid, "allowed": true, "patchType": "JSONPatch", "patch": BASE64_STANDARD.encode(patch)})
            }
            Self::Refuse(sentence) => refusal(uid, 403, "Forbidden", sentence),
            Self::Fail(sentence) => refusal(uid, 503, "ServiceUnavailable", sentence),
        };
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    }

    /// In one word, for metrics and logs.
    #[must_use]
    pub const fn result(&self) -> &'static str {
        match self {
            Self::Admit { .. } => "admitted",
            Self::Patch(_) => "patched",
            Self::Refuse(_) => "refused",
            Self::Fail(_) => "failed",
        }
    }
}

fn refusal(uid: &str, code: u16, reason: &str, sentence: &str) -> Value {
    json!({"uid": uid, "allowed": false, "status": {"code": code, "reason": reason, "message": sentence}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_creation_of_pods_is_looked_at() {
        let body = |request: Value| {
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).to_string()
        };
        let mut request = json!({
            "uid": "u", "namespace": "shop", "operation": "CREATE", "dryRun": true,
            "resource": {"group": "", "version": "v1", "resource": "pods"}, "object": {"spec": {}},
        });
        let review = Review::read(body(request.clone()).as_bytes()).unwrap();
        assert_eq!((review.uid.as_str(), review.namespace.as_str(), review.dry_run), ("u", "shop", true));
        assert!(review.creates_pod);
        assert_eq!(review.object, json!({"spec": {}}));
        for (key, value) in [
            ("operation", json!("UPDATE")),
            ("subResource", json!("eviction")),
            ("resource", json!({"group": "apps", "resource": "deployments"})),
        ] {
            let old = request[key].take();
            request[key] = value;
            assert!(!Review::read(body(request.clone()).as_bytes()).unwrap().creates_pod, "{key}");
            request[key] = old;
        }
    }

    #[test]
    fn what_is_no_review_is_told_so() {
        for (body, sentence) in [
            ("{", "not JSON: EOF while parsing an object at line 1 column 1"),
            ("{}", "not an AdmissionReview of admission.k8s.io/v1"),
            (
                r#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"}"#,
                "not an AdmissionReview of admission.k8s.io/v1",
            ),
            (r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#, "request.uid is missing"),
        ] {
            assert_eq!(Review::read(body.as_bytes()).unwrap_err(), sentence);
        }
    }

    #[test]
    fn a_refusal_is_forbidden_with_its_sentence() {
        let answer = Answer::Refuse("no: do this".to_owned()).write("u");
        assert_eq!(
            answer["response"],
            json!({"uid": "u", "allowed": false, "status": {"code": 403, "reason": "Forbidden", "message": "no: do this"}})
        );
    }
}
