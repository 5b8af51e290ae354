//! Whether the cluster's schemas are new enough for this operator.
//!
//! An API server drops fields that its schema does not have: an operator that wrote through an old schema would forget
//! what it must remember. So nothing is read or written before the manifests have at least this operator's revision.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use walstorage_crds::names::{ANNOTATION_SCHEMA_REVISION, SCHEMA_REVISION};

use super::health::Gate;

/// The definitions that the operator works with.
pub const DEFINITIONS: [&str; 2] = ["walstorages.walstorage.dev", "walwriters.walstorage.dev"];
/// How long one question may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Judges one definition, as it was found.
///
/// # Errors
/// A sentence with the command to run.
pub fn judge(name: &str, definition: Option<&CustomResourceDefinition>) -> Result<(), String> {
    let remedy =
        "run: walstorage-operator crds | kubectl apply --server-side -f - (or: helm upgrade --install walstorage-crds)";
    let Some(definition) = definition else {
        return Err(format!("{name} is not installed; {remedy}"));
    };
    let annotation = definition.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION_SCHEMA_REVISION));
    match annotation.and_then(|text| text.parse::<u32>().ok()) {
        Some(found) if found >= SCHEMA_REVISION => {}
        Some(found) => {
            return Err(format!("{name} has schema revision {found}, this operator needs {SCHEMA_REVISION}; {remedy}"));
        }
        None => {
            return Err(format!("{name} has no annotation {ANNOTATION_SCHEMA_REVISION}; {remedy}"));
        }
    }
    let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let established = conditions.into_iter().any(|is| is.type_ == "Established" && is.status == "True");
    if established { Ok(()) } else { Err(format!("{name} is not established yet; the API server takes a moment")) }
}

/// Waits until all definitions are new enough; keeps the gate closed with the reason until then, and opens it. Returns
/// early when the token is cancelled.
pub async fn wait(client: &Client, gate: &Gate, retry: Duration, stop: &CancellationToken) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut said = String::new();
    while !stop.is_cancelled() {
        let mut problem = None;
        for name in DEFINITIONS {
            let found = match timeout(ANSWER, api.get_opt(name)).await {
                Ok(Ok(definition)) => judge(name, definition.as_ref()),
                Ok(Err(error)) => Err(format!("{name} cannot be read: {error}")),
                Err(_) => Err(format!("{name} cannot be read: no answer in {ANSWER:?}")),
            };
            problem = problem.or(found.err());
        }
        let Some(problem) = problem else {
            gate.open();
            return;
        };
        if problem != said {
            tracing::warn!(problem, "waiting for the schemas");
            said.clone_from(&problem);
        }
        gate.close(problem);
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep(retry) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(revision: &str, established: &str) -> CustomResourceDefinition {
        serde_json::from_value(json!({
            "metadata": {"annotations": {ANNOTATION_SCHEMA_REVISION: revision}},
            "spec": {"group": "walstorage.dev", "names": {"kind": "WalStorage", "plural": "walstorages"}, "scope": "Namespaced", "versions": []},
            "status": {"conditions": [{"type": "Established", "status": established}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_schema_of_this_revision_or_a_newer_one_is_enough() {
        for revision in [SCHEMA_REVISION, SCHEMA_REVISION + 1] {
            assert_eq!(judge("a", Some(&definition(&revision.to_string(), "True"))), Ok(()));
        }
    }

    #[test]
    fn an_older_or_absent_schema_names_the_command_to_run() {
        let old = (SCHEMA_REVISION - 1).to_string();
        for found in [None, Some(definition(&old, "True")), Some(definition("one", "True"))] {
            let problem = judge("walstorages.walstorage.dev", found.as_ref()).unwrap_err();
            assert!(problem.contains("walstorage-operator crds | kubectl apply --server-side -f -"), "{problem}");
        }
        let revision = SCHEMA_REVISION.to_string();
        assert!(judge("a", Some(&definition(&revision, "False"))).unwrap_err().contains("not established"));
    }
}
