//! The WalWriter during a run: read once, changed by compare-and-swap only.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use walstorage_crds::walwriter::{
    Empty, Holder, Phase, WalWriter, WalWriterSpec, WalWriterStatus, WriterVolume, condition,
};

use super::call::Call;
use super::context::{Cx, Flow};
use crate::planted::mutant;

/// The ledger of the run's writer, in the newest version that the run has seen.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    writer: WalWriter,
    /// The status that it has, or is staged; never absent.
    pub(super) status: WalWriterStatus,
    /// The status is not written yet.
    staged: bool,
}

impl Ledger {
    pub(super) fn new(cx: &Cx, writer: WalWriter) -> Self {
        let status = writer.status.clone().unwrap_or_default();
        cx.seam.is_at(status.phase);
        Self { writer, status, staged: false }
    }

    pub(super) fn spec(&self) -> &WalWriterSpec {
        &self.writer.spec
    }

    pub(super) fn uid(&self) -> String {
        self.writer.metadata.uid.clone().unwrap_or_default()
    }

    /// The version that was read; a planted bug writes whatever the version is.
    pub(super) fn version(&self) -> String {
        if mutant!(NoCompareAndSwap) {
            return String::new();
        }
        self.writer.metadata.resource_version.clone().unwrap_or_default()
    }

    /// The version as it was read.
    pub(super) fn read_version(&self) -> Option<String> {
        self.writer.metadata.resource_version.clone()
    }

    pub(super) fn created(&self) -> i64 {
        self.writer.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_millisecond())
    }

    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.writer.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }

    pub(super) fn phase(&self) -> Option<Phase> {
        self.status.phase
    }

    pub(super) fn holder(&self) -> Option<&Holder> {
        self.status.holder.as_ref()
    }

    pub(super) fn volumes(&self) -> &[WriterVolume] {
        self.status.volumes.as_deref().unwrap_or_default()
    }

    /// Milliseconds since the phase began.
    pub(super) fn age(&self, now: i64) -> i64 {
        now - self.status.phase_since.as_ref().map_or_else(|| self.created(), |time| time.0.as_millisecond())
    }

    /// Takes a status that is written with what follows: the next swap, by the version that was read. Without one, nothing
    /// of it has been.
    pub(super) fn stage(&mut self, status: WalWriterStatus) {
        (self.status, self.staged) = (status, true);
    }

    /// Writes the status if nobody has written the object since it was read.
    pub(super) async fn swap(&mut self, cx: &Cx, status: WalWriterStatus) -> Flow<()> {
        if status == self.status && !self.staged {
            return Ok(());
        }
        let call = Call::SwapStatus { resource_version: self.version(), status: Box::new(status) };
        *self = Self::new(cx, cx.write_writer(call).await?);
        Ok(())
    }

    /// Takes a user's annotation off, once what it asks for is done.
    pub(super) async fn drop_annotation(&mut self, cx: &Cx, name: &'static str) -> Flow<()> {
        if self.annotation(name).is_some() {
            let call = Call::DropAnnotation { resource_version: self.version(), name };
            *self = Self::new(cx, cx.write_writer(call).await?);
        }
        Ok(())
    }
}

/// A time of the API: whole seconds, as it is stored.
pub(super) fn time(now: i64) -> Time {
    Time(Timestamp::from_second(now.div_euclid(1000)).unwrap_or_default())
}

/// Changes of a status that several parts make alike.
pub(super) trait StatusExt {
    /// Enters a phase, with the conditions that follow from it.
    fn enter(&mut self, phase: Phase, now: i64);
    /// Sets a condition; its time changes with its status only.
    fn set(&mut self, kind: &str, value: bool, reason: &str, message: &str, now: i64);
    /// The same, with all three values.
    fn set_to(&mut self, kind: &str, value: &str, reason: &str, message: &str, now: i64);
    /// Whether a condition is True.
    fn is(&self, kind: &str) -> bool;
}

impl StatusExt for WalWriterStatus {
    fn enter(&mut self, phase: Phase, now: i64) {
        if self.phase != Some(phase) {
            self.phase = Some(phase);
            self.phase_since = Some(time(now));
        }
        let held = self.holder.is_some();
        self.set(condition::GRANTED, held, phase.as_str(), "", now);
        let left = self.last_report.as_ref().and_then(|report| report.unapplied_entries);
        match (phase, left) {
            (Phase::Drained, _) => self.set(condition::DRAINED, true, "NothingUnapplied", "", now),
            (Phase::Released | Phase::Orphaned | Phase::Lost, Some(left)) if left > 0 => {
                self.set(condition::DRAINED, false, "Unapplied", &format!("{left} entries are not applied"), now);
            }
            _ => self.set_to(condition::DRAINED, "Unknown", "NobodySaid", "", now),
        }
        if !matches!(phase, Phase::Releasing | Phase::Pending) && self.is(condition::STUCK) {
            self.set(condition::STUCK, false, "Ended", "", now);
        }
    }

    fn set(&mut self, kind: &str, value: bool, reason: &str, message: &str, now: i64) {
        self.set_to(kind, if value { "True" } else { "False" }, reason, message, now);
    }

    fn set_to(&mut self, kind: &str, value: &str, reason: &str, message: &str, now: i64) {
        let conditions = self.conditions.get_or_insert_default();
        let before = conditions.iter().position(|condition| condition.type_ == kind);
        let since = before.map(|at| &conditions[at]).filter(|condition| condition.status == value);
        let made = Condition {
            type_: kind.to_owned(),
            status: value.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            observed_generation: None,
            last_transition_time: since.map_or_else(|| time(now), |condition| condition.last_transition_time.clone()),
        };
        match before {
            Some(at) => conditions[at] = made,
            None => conditions.push(made),
        }
    }

    fn is(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|condition| condition.status == "True")
    }
}

/// Whether the directory may hold something.
pub(super) fn may_hold(volume: &WriterVolume) -> bool {
    volume.empty != Some(Empty::True)
}
