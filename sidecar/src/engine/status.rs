//! What the engine shows of itself.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::inner::Inner;
use crate::api::{DirectoryState, DirectoryStatus, EngineStatus, Phase};
use crate::commit::journal::{Health, Journal};
use crate::commit::log::{Log, Stage};
use crate::recovery::open::Unusable;
use crate::types::{DirectoryId, Epoch};

/// A directory is shown as slow when its latency is this many times the best one's.
const SLOW: f64 = 10.0;

pub(super) fn status(inner: &Inner) -> EngineStatus {
    // Each lock is let go before the next is taken.
    let writer_id = inner.config.lock().wal.writer_id.clone().unwrap_or_default();
    let memory_limit_bytes = inner.memory_limit();
    let mut status = EngineStatus {
        // Until it is read who wrote here, the grant says who is to.
        writer_uid: inner.grant.as_ref().map(|grant| grant.writer_uid),
        writer_id,
        epoch: Epoch(0),
        grant: inner.grant.as_ref().map_or(0, |grant| grant.epoch),
        holder: inner.grant.as_ref().map(|grant| grant.holder.clone()).unwrap_or_default(),
        phase: Phase::Recovering,
        waiting_for: Vec::new(),
        replay_done_bytes: inner.progress.done.load(Ordering::Relaxed),
        replay_total_bytes: inner.progress.total.load(Ordering::Relaxed),
        directories: Vec::new(),
        memory_used_bytes: 0,
        memory_limit_bytes,
        collections: 0,
        unapplied_entries: 0,
        unapplied_bytes: 0,
        damage: Vec::new(),
        warnings: Vec::new(),
    };
    if inner.peek(|log| show_log(log, &mut status)).is_some() {
        let findings = inner.findings.lock();
        status.directories.extend(findings.unusable.iter().map(unusable));
        status.damage.clone_from(&findings.damage);
        status.warnings.clone_from(&findings.warnings);
        drop(findings);
        show_troubles(inner, &mut status);
    } else if let Some(waiting) = &inner.recovering.lock().waiting {
        status.phase = Phase::Waiting;
        status.writer_uid = waiting.writer.or(status.writer_uid);
        status.waiting_for.clone_from(&waiting.reasons);
        status.damage.clone_from(&waiting.damage);
        status.warnings.clone_from(&waiting.warnings);
        status.directories.extend(waiting.present.iter().map(|(url, uuid)| DirectoryStatus {
            uuid: uuid.map(DirectoryId),
            ..blank(url.clone(), DirectoryState::Healthy)
        }));
        status.directories.extend(waiting.unusable.iter().map(unusable));
    } else {
        let config = inner.config.lock();
        let urls = config.wal.wal_urls.iter().chain(&config.wal.journal_url);
        status.directories.extend(urls.map(|url| blank(url.clone(), DirectoryState::Healthy)));
        drop(config);
        show_troubles(inner, &mut status);
    }
    status.warnings.extend(inner.memory_warning.lock().clone());
    if inner.stopping.load(Ordering::Acquire) {
        status.phase = Phase::Stopping;
    }
    status
}

/// A store that is asked again and again is no failed directory, but what is wrong with it is said.
fn show_troubles(inner: &Inner, status: &mut EngineStatus) {
    for (url, trouble) in inner.troubles() {
        let shown = status.directories.iter_mut().filter(|dir| dir.url == url);
        for dir in shown.filter(|dir| matches!(dir.state, DirectoryState::Healthy | DirectoryState::Slow)) {
            dir.state = DirectoryState::Slow;
            dir.reason = format!("{} ({})", trouble.sentence, trouble.condition);
            "it is asked again by itself; what waits for it is not lost".clone_into(&mut dir.remedy);
        }
    }
}

fn blank(url: walstorage_crds::url::WalUrl, state: DirectoryState) -> DirectoryStatus {
    DirectoryStatus {
        uuid: None,
        url,
        state,
        reason: String::new(),
        remedy: String::new(),
        since: SystemTime::now(),
        device: String::new(),
        in_use: false,
        draining: false,
        capacity_bytes: 0,
        free_bytes: 0,
        pending_bytes: 0,
        journal_bytes: 0,
        journal_max_bytes: 0,
        evacuation_bytes_left: 0,
        commit_latency_us: 0.0,
        acks_per_sync: 0.0,
        io: None,
        segments: 0,
        reserve_bytes: 0,
    }
}

fn unusable(unusable: &Unusable) -> DirectoryStatus {
    DirectoryStatus {
        uuid: unusable.uuid.map(DirectoryId),
        reason: unusable.reason.clone(),
        remedy: unusable.remedy.clone(),
        in_use: unusable.uuid.is_some() && unusable.state != DirectoryState::Forgotten,
        ..blank(unusable.wanted_url.clone(), unusable.state)
    }
}

fn show_log(log: &Log, status: &mut EngineStatus) {
    status.writer_uid = Some(log.identity.writer);
    status.writer_id.clone_from(&log.identity.writer_id);
    status.epoch = log.identity.epoch;
    status.grant = log.identity.grant;
    status.holder.clone_from(&log.identity.holder);
    status.phase = match log.stage {
        Stage::Opening => Phase::Recovering,
        Stage::Serving if log.drains() => Phase::Draining,
        Stage::Serving => Phase::Ready,
        Stage::Stopping => Phase::Stopping,
        Stage::Fenced(_) => Phase::Fenced,
    };
    status.waiting_for.extend(log.waits_for_shelves());
    status.memory_used_bytes = log.memory();
    status.memory_limit_bytes = log.settings.memory_limit;
    for collection in log.iter() {
        status.collections += 1;
        status.unapplied_entries += collection.entries();
        status.unapplied_bytes += collection.bytes();
    }
    let best = log.best_latency_us(None);
    let shown = log.journals.iter().enumerate().map(|(dir, journal)| {
        let (needed, files) = (log.segments_in(dir), log.segment_files(dir));
        show_journal(journal, best, Segments { needed, files, unreadable: log.unreadable_in(dir) })
    });
    status.directories.extend(shown);
}

/// Segments that lie in a directory.
#[derive(Clone, Copy)]
struct Segments<'a> {
    /// Parts of collections in them that are needed.
    needed: usize,
    files: u64,
    /// Why one of them cannot be moved elsewhere.
    unreadable: Option<&'a str>,
}

/// What may be done about a directory that is being emptied, or is.
fn evacuation(journal: &Journal, segments: Segments<'_>, otherwise: &str) -> String {
    let Segments { needed, unreadable, files: _ } = segments;
    match journal.evacuation_bytes_left() {
        _ if journal.is_evacuated() => "nothing of it is needed any more: it may be removed or replaced".to_owned(),
        _ if journal.evacuation.is_none() => otherwise.to_owned(),
        0 if needed > 0
            && let Some(why) = unreadable =>
        {
            format!(
                "{needed} segments in it are still needed, and not all can be read: {why}; that is tried again every minute: \
             repair it, or truncate what it holds"
            )
        }
        0 if needed > 0 && journal.draining => {
            format!("{needed} segments in it are still to be copied: keep it until then")
        }
        0 if needed > 0 => format!("{needed} segments in it are still needed: keep it until they are truncated"),
        left => format!("{left} bytes of it are still to be written elsewhere, from memory: keep it until then"),
    }
}

fn show_journal(journal: &Journal, best_us: f64, segments: Segments<'_>) -> DirectoryStatus {
    let (state, reason, remedy) = match &journal.health {
        Health::Full(why) => {
            let remedy = "make room: it goes on by itself; its collections live on other directories meanwhile";
            (DirectoryState::Full, why.clone(), remedy.to_owned())
        }
        Health::Failed(why) if journal.not_mounted => {
            let remedy = "mount it again: it is tried every minute";
            (DirectoryState::NotMounted, why.clone(), evacuation(journal, segments, remedy))
        }
        Health::Failed(why) => {
            let remedy = "repair or replace the device; it is tried again every minute";
            (DirectoryState::Failed, why.clone(), evacuation(journal, segments, remedy))
        }
        Health::Healthy if journal.draining => {
            let remedy = "another directory has to take what it holds";
            (DirectoryState::Draining, String::new(), evacuation(journal, segments, remedy))
        }
        Health::Healthy if let Some(full) = &journal.full => {
            let remedy = "truncate what is applied, or make room: entries are taken again below 85 % by themselves";
            (DirectoryState::Full, full.why.clone(), remedy.to_owned())
        }
        // A bucket beside a disk is always slower, and nothing is wrong with it.
        Health::Healthy if journal.latency_us > SLOW * best_us && !journal.of_objects => {
            let reason = format!("commits take {:.0} us", journal.latency_us);
            (DirectoryState::Slow, reason, "look at the device".to_owned())
        }
        Health::Healthy if let Some((_, why)) = &journal.flusher.blocked => {
            let remedy = "its journal cannot be emptied until that succeeds, which is tried every few seconds: make room \
                          or look at the device";
            (DirectoryState::Healthy, format!("the last flush failed: {why}"), remedy.to_owned())
        }
        Health::Healthy => (DirectoryState::Healthy, String::new(), String::new()),
    };
    DirectoryStatus {
        uuid: Some(journal.id),
        url: journal.url.clone(),
        state,
        reason,
        remedy,
        since: journal.since,
        device: journal.device.1.clone(),
        in_use: journal.in_use,
        draining: journal.draining,
        capacity_bytes: journal.space.capacity,
        free_bytes: journal.space.free,
        pending_bytes: journal.pending_bytes,
        journal_bytes: journal.journal_bytes(),
        journal_max_bytes: journal.journal_max,
        evacuation_bytes_left: journal.evacuation_bytes_left(),
        commit_latency_us: journal.latency_us,
        acks_per_sync: journal.acks_per_sync,
        io: (!journal.of_objects).then_some(journal.io),
        segments: segments.files,
        reserve_bytes: journal.pool.reserve.bytes(),
    }
}
