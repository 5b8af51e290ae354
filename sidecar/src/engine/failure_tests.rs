//! The engine on disks that fail and come back.

use std::collections::BTreeMap;
use std::time::Instant;

use super::fault_tests::{Machine, batch, contents, name, toml};
use crate::commit::journal::Health;
use crate::directory::mem_disk::Faults;
use crate::error::Reason;

#[tokio::test]
async fn a_session_closes_the_one_before_it_and_what_the_failed_write_left_is_garbage() {
    let machine = Machine::default();
    let config = toml(&["file:///m/a"], "");
    let engine = machine.ready(&config).await;
    engine.append(batch("c", &["kept".into()]), None).await.unwrap();
    machine.break_all(Faults { syncs_left: Some(0), ..Faults::default() });
    let error = engine.append(batch("d", &["left behind".into()]), None).await.unwrap_err();
    assert_eq!(error.reason, Reason::UnknownOutcome);

    machine.break_all(Faults::default());
    engine.0.with_log(|log| {
        log.restart_stream(0, Instant::now());
        log.journals[0].health = Health::Healthy;
    });
    engine.append(batch("c", &["next session".into()]), None).await.unwrap();
    engine.shutdown().await;

    let engine = machine.ready(&config).await;
    let kept = BTreeMap::from([(1, "kept".to_owned()), (2, "next session".to_owned())]);
    assert_eq!(contents(&engine, "c").await, kept);
    assert!(engine.collection(&name("d")).is_err(), "the frame whose sync failed lies behind the close");
    engine.shutdown().await;
}
