//! Volumes of nodes on paper: nothing is behind them, and thousands may be wanted at a time. Each is made and bound to its
//! claim by one task of many: in a real cluster the one worker of the controller manager binds, one claim after the other, and
//! what a test or a measurement of pods waited for would be that worker.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Error, ResourceExt as _};
use kube_runtime::WatchStreamExt as _;
use kube_runtime::watcher::{Config, watcher};
use serde_json::json;

use super::volumes::{self, PROVISIONER, Task, Wanted, is_done_with, note};
use crate::spec::Binder;

/// Claims and volumes that are served at a time.
const AT_ONCE: usize = 32;
/// What fails was changed meanwhile, most likely, and the change brings it again; if not, so often.
const TRIES: u32 = 20;

/// What changed.
enum Changed {
    Class(Box<StorageClass>),
    Claim(Box<PersistentVolumeClaim>),
    Volume(Box<PersistentVolume>),
}

/// Serves claims for ever; what fails again and again stands in `log`.
pub(super) async fn provide(client: Client, binder: Binder, log: PathBuf) {
    let config = Config::default;
    let classes = watcher(Api::<StorageClass>::all(client.clone()), config()).default_backoff().applied_objects();
    let claims = watcher(Api::<PersistentVolumeClaim>::all(client.clone()), config()).default_backoff();
    let volumes = watcher(Api::<PersistentVolume>::all(client.clone()), config()).default_backoff();
    let classes = classes.map(|one| one.map(|one| Changed::Class(Box::new(one)))).boxed();
    let claims = claims.applied_objects().map(|one| one.map(|one| Changed::Claim(Box::new(one)))).boxed();
    let volumes = volumes.applied_objects().map(|one| one.map(|one| Changed::Volume(Box::new(one)))).boxed();
    let paper = Paper { client, binder, classes: Mutex::default(), made: Mutex::default() };
    let changes = futures_util::stream::select_all([classes, claims, volumes]);
    changes
        .for_each_concurrent(AT_ONCE, |changed| {
            let (paper, log) = (&paper, &log);
            async move {
                // An interrupted watch begins anew.
                let Ok(changed) = changed else { return };
                for _ in 0..TRIES {
                    match paper.see_to(&changed).await {
                        Ok(()) => return,
                        Err(error) => note(log, &error),
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        })
        .await;
}

struct Paper {
    client: Client,
    binder: Binder,
    /// Our classes, by name.
    classes: Mutex<HashMap<String, StorageClass>>,
    /// Claims, by uid, that got their volume or are getting it: until all of it is written, each step of that brings them again.
    made: Mutex<HashSet<String>>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Paper {
    async fn see_to(&self, changed: &Changed) -> Result<()> {
        match changed {
            Changed::Class(class) if class.provisioner == PROVISIONER => {
                lock(&self.classes).insert(class.name_any(), StorageClass::clone(class));
                // Those that were there before it.
                let claims: Api<PersistentVolumeClaim> = Api::all(self.client.clone());
                for claim in claims.list(&ListParams::default()).await? {
                    self.serve(&claim).await?;
                }
                Ok(())
            }
            Changed::Class(_) => Ok(()),
            Changed::Claim(claim) => self.serve(claim).await,
            Changed::Volume(volume) if is_done_with(volume, &lock(&self.classes)) => {
                let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
                gone(volumes.delete(&volume.name_any(), &DeleteParams::default()).await.map(drop))
            }
            Changed::Volume(_) => Ok(()),
        }
    }

    async fn serve(&self, claim: &PersistentVolumeClaim) -> Result<()> {
        let Some(wanted) = Wanted::of(claim, &lock(&self.classes)) else { return Ok(()) };
        let uid = claim.uid().unwrap_or_default();
        let makes = matches!(wanted.task, Task::Make { .. });
        if makes && !lock(&self.made).insert(uid.clone()) {
            return Ok(());
        }
        let served = self.make_or_grow(claim, &wanted).await;
        if makes && served.is_err() {
            lock(&self.made).remove(&uid);
        }
        served
    }

    async fn make_or_grow(&self, claim: &PersistentVolumeClaim, wanted: &Wanted) -> Result<()> {
        let client = &self.client;
        let volumes: Api<PersistentVolume> = Api::all(client.clone());
        let claims: Api<PersistentVolumeClaim> =
            Api::namespaced(client.clone(), &claim.namespace().unwrap_or_default());
        let (name, plain) = (claim.name_any(), PatchParams::default());
        let status = match &wanted.task {
            Task::Make { node } => {
                let volume = volumes::volume(claim, wanted, node)?;
                match volumes.create(&PostParams::default(), &volume).await {
                    Err(Error::Api(status)) if status.is_already_exists() => {}
                    created => drop(created?),
                }
                if self.binder == Binder::All {
                    // What the other binder would see to.
                    let bound = json!({"status": {"phase": "Bound"}});
                    volumes.patch_status(&wanted.volume, &plain, &Patch::Merge(bound)).await?;
                }
                let bound = json!({
                    "metadata": {"uid": claim.uid(), "annotations": {
                        "pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes",
                    }},
                    "spec": {"volumeName": wanted.volume},
                });
                let patched = claims.patch(&name, &plain, &Patch::Merge(bound)).await;
                let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.clone());
                let status = json!({"phase": "Bound", "accessModes": modes, "capacity": {"storage": wanted.size}});
                // Mostly nobody writes the claim between the two, and the API server need not merge anything.
                if let Ok(mut patched) = patched {
                    patched.metadata.managed_fields = None;
                    patched.status = Some(serde_json::from_value(status.clone())?);
                    if claims.replace_status(&name, &PostParams::default(), &patched).await.is_ok() {
                        return Ok(());
                    }
                } else {
                    gone(patched.map(drop))?;
                }
                status
            }
            Task::Grow => {
                let size = json!({"spec": {"capacity": {"storage": wanted.size}}});
                volumes.patch(&wanted.volume, &plain, &Patch::Merge(size)).await?;
                json!({"capacity": {"storage": wanted.size}, "conditions": null})
            }
        };
        let status = json!({"metadata": {"uid": claim.uid()}, "status": status});
        gone(claims.patch_status(&name, &plain, &Patch::Merge(status)).await.map(drop))
    }
}

/// One that is gone, or another one by now, wants nothing any more.
fn gone(done: Result<(), Error>) -> Result<()> {
    match done {
        Err(Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        done => Ok(done?),
    }
}
