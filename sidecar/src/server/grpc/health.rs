//! `grpc.health.v1.Health`, answered from the engine's status at the moment of the question. The service names are ""
//! and `walstorage.v1.Wal`; both serve when appends can be taken.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, stream};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use crate::server::{Shared, status};

/// How often a watcher looks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Health(pub(crate) Arc<Shared>);

fn known(service: &str) -> bool {
    matches!(service, "" | "walstorage.v1.Wal")
}

fn serving(shared: &Shared, service: &str) -> ServingStatus {
    if !known(service) {
        ServingStatus::ServiceUnknown
    } else if status::ready(&shared.engine.status()).is_ok() {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match serving(&self.0, &service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found(format!("there is no service {service:?} here"))),
            status => Ok(Response::new(HealthCheckResponse { status: status as i32 })),
        }
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let shared = self.0.clone();
        let changes = stream::unfold((shared, service, None), |(shared, service, last)| async move {
            loop {
                let now = serving(&shared, &service);
                if last != Some(now) {
                    let response = HealthCheckResponse { status: now as i32 };
                    return Some((Ok(response), (shared, service, Some(now))));
                }
                tokio::select! {
                    () = tokio::time::sleep(WATCH_EVERY) => {}
                    () = shared.closing.cancelled() => return None,
                }
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}
