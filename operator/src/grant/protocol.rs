//! The order of a run: what the caches show of a start is written down; else read the ledger, see to its holder, to the user's verbs and to time; then to the pods that want it.

use walstorage_crds::walwriter::Phase;

use super::context::{Cx, Flow};
use super::ledger::Ledger;
use super::mint::Made;
use super::run::{Key, Outcome, Seam};
use super::view::View;
use super::{candidates, claims, holder, mint, reclaim, start, verbs};

pub(super) async fn run(seam: Seam, key: Key, view: View) -> Outcome {
    let cx = Cx { seam, key, view };
    match drive(&cx).await {
        Ok(outcome) | Err(outcome) => outcome,
    }
}

async fn drive(cx: &Cx) -> Flow<Outcome> {
    if cx.view.namespace_ends {
        return Ok(Outcome::Settled(None));
    }
    if let Some(ended) = start::see_to(cx).await? {
        return Ok(ended);
    }
    // G1
    // One that nobody has seen is most likely not there; who creates it is told if it is.
    let seen = if cx.view.has_ledger { cx.get_writer().await? } else { None };
    let made = match seen {
        Some(writer) => Made::Before(Box::new(writer)),
        None => mint::mint(cx).await?,
    };
    let (mut ledger, minted) = match made {
        Made::Before(writer) => (Ledger::new(cx, *writer), None),
        Made::Now(made) => {
            let (ledger, minted) = *made;
            (ledger, Some(minted))
        }
        Made::Not => return Ok(Outcome::Settled(None)),
    };
    claims::grow(cx, &mut ledger).await?;
    let mut wake = Wake::default();
    let held = holder::see_to(cx, &mut ledger, &mut wake).await?;
    verbs::abandon(cx, &mut ledger).await?;
    verbs::judge_claims(cx, &mut ledger).await?;
    if reclaim::by_time(cx, &mut ledger, &mut wake).await? {
        return Ok(Outcome::Settled(None));
    }
    if ledger.phase() == Some(Phase::Reclaiming) && !reclaim::reclaim(cx, &mut ledger, &mut wake).await? {
        return Ok(Outcome::Settled(wake.after));
    }
    candidates::see_to(cx, ledger, minted, held, &mut wake).await?;
    Ok(Outcome::Settled(wake.after))
}

/// When the run must be made again without anything having changed.
#[derive(Debug, Default)]
pub(super) struct Wake {
    after: Option<i64>,
}

impl Wake {
    /// In so many milliseconds at the latest.
    pub(super) fn within(&mut self, ms: i64) {
        let ms = ms.max(1);
        self.after = Some(self.after.map_or(ms, |after| after.min(ms)));
    }
}
