//! What `/status`, `GetStatus` and `walctl status` show: the engine's status and the configuration's, as one message.

use crate::engine::api::{DamageReport, DirectoryState, DirectoryStatus, EngineStatus, Phase};
use crate::proto;
use crate::server::convert::timestamp;

/// How the configuration is: kept by whoever reads the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigReport {
    /// SHA-256 of the file in force, lower-case hex.
    pub hash: String,
    /// Why the newest file was refused; empty when it was not.
    pub error: String,
    /// Settings of the newest file that take effect at the next start.
    pub pending_restart: Vec<String>,
    /// Warnings about the file.
    pub warnings: Vec<String>,
}

/// The whole status.
#[must_use]
pub fn message(engine: EngineStatus, config: ConfigReport) -> proto::Status {
    let EngineStatus {
        writer_uid,
        writer_id,
        epoch,
        grant,
        holder,
        phase,
        waiting_for,
        replay_done_bytes,
        replay_total_bytes,
        directories,
        memory_used_bytes,
        memory_limit_bytes,
        collections,
        unapplied_entries,
        unapplied_bytes,
        damage,
        warnings,
    } = engine;
    let segments = directories.iter().map(|directory| directory.segments).sum();
    proto::Status {
        writer: Some(proto::Writer {
            uid: writer_uid.map(|uid| uid.to_string()).unwrap_or_default(),
            id: writer_id,
            epoch: epoch.0,
            grant,
            holder,
        }),
        phase: phase.as_str().into(),
        waiting_for,
        replay: Some(proto::Replay { done_bytes: replay_done_bytes, total_bytes: replay_total_bytes }),
        directories: directories.into_iter().map(directory).collect(),
        memory: Some(proto::Memory { used_bytes: memory_used_bytes, limit_bytes: memory_limit_bytes }),
        collections,
        unapplied_entries,
        unapplied_bytes,
        damage: damage.into_iter().map(damage_report).collect(),
        config: Some(proto::ConfigState {
            hash: config.hash,
            error: config.error,
            pending_restart: config.pending_restart,
            warnings: config.warnings.into_iter().chain(warnings).collect(),
        }),
        version: env!("CARGO_PKG_VERSION").into(),
        segments,
    }
}

/// One directory.
#[must_use]
pub fn directory(status: DirectoryStatus) -> proto::Directory {
    let DirectoryStatus {
        uuid,
        url,
        state,
        reason,
        remedy,
        since,
        device,
        in_use,
        draining,
        capacity_bytes,
        free_bytes,
        pending_bytes,
        journal_bytes,
        journal_max_bytes,
        evacuation_bytes_left,
        commit_latency_us,
        acks_per_sync,
        io,
        segments,
        reserve_bytes,
    } = status;
    proto::Directory {
        uuid: uuid.map(|id| id.to_string()).unwrap_or_default(),
        url: url.as_str().to_owned(),
        state: state.as_str().into(),
        reason,
        remedy,
        since: Some(timestamp(since)),
        device,
        in_use,
        draining,
        capacity_bytes,
        free_bytes,
        pending_bytes,
        journal_bytes,
        journal_max_bytes,
        evacuation_bytes_left,
        commit_latency_us,
        acks_per_sync,
        io: io.map(|io| io.as_str().to_owned()).unwrap_or_default(),
        segments,
        reserve_bytes,
    }
}

fn damage_report(report: DamageReport) -> proto::Damage {
    let DamageReport { directory, file, offset, what, lost } = report;
    proto::Damage {
        file,
        offset,
        directory: directory.as_str().to_owned(),
        what,
        lost: lost
            .into_iter()
            .map(|(collection, range)| proto::DamagedRange {
                collection: collection.map(|name| name.as_str().to_owned()).unwrap_or_default(),
                first: range.map_or(0, |(first, _)| first.0),
                last: range.map_or(0, |(_, last)| last.0),
            })
            .collect(),
    }
}

/// Whether reads are answered; otherwise why not.
///
/// # Errors
/// A sentence for people.
pub fn started(status: &EngineStatus) -> Result<(), String> {
    match status.phase {
        Phase::Ready | Phase::Draining => Ok(()),
        Phase::Recovering => {
            Err(format!("recovering: {} of {} journal bytes read", status.replay_done_bytes, status.replay_total_bytes))
        }
        Phase::Waiting => Err(format!("waiting: {}", status.waiting_for.join("; "))),
        Phase::Stopping => Err("stopping".into()),
        Phase::Fenced => Err("fenced: another process has taken over this writer".into()),
    }
}

/// Whether appends can be taken: started, and at least one writable directory; otherwise why not.
///
/// # Errors
/// A sentence for people.
pub fn ready(status: &EngineStatus) -> Result<(), String> {
    started(status)?;
    let writable = |d: &&DirectoryStatus| matches!(d.state, DirectoryState::Healthy | DirectoryState::Slow);
    if status.directories.iter().any(|d| writable(&d)) {
        return Ok(());
    }
    let states: Vec<String> =
        status.directories.iter().map(|d| format!("{} is {}: {}", d.url, d.state.as_str(), d.reason)).collect();
    Err(format!("no writable directory: {}", states.join("; ")))
}
