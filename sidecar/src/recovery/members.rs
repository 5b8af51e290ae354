//! Who the writer's directories are: the members that the newest EPOCH names are found, waited for or given up; what is
//! configured and new is made.

use std::collections::BTreeSet;

use uuid::Uuid;
use walstorage_crds::url::WalUrl;

use super::budget::Budget;
use super::open::{self, Unusable, Wanted};
use super::{Attempt, Stop, Waiting};
use crate::ambient;
use crate::api::DirectoryState;
use crate::directory::identity::{self, Identity};
use crate::engine::Ended;
use crate::format::facts::{EpochFact, Member};

impl Attempt<'_> {
    pub(super) fn newest_epoch(&self) -> Option<EpochFact> {
        let streams = self.opened.iter().filter_map(|dir| dir.journal.as_ref()).flat_map(|journal| &journal.streams);
        streams
            .flat_map(|stream| {
                let moment = |seq: u64, fact: &EpochFact| (stream.key.epoch, fact.version, stream.key.session, seq);
                let whole = stream.content.epoch.iter().map(move |(seq, epoch)| (moment(*seq, epoch), epoch.clone()));
                // Who the members are must be known even where the frame that says so is damaged.
                let saved = stream
                    .losses
                    .iter()
                    .flat_map(|loss| loss.epochs())
                    .map(move |(seq, fact)| (moment(seq, &fact), fact));
                whole.chain(saved).collect::<Vec<_>>()
            })
            .max_by_key(|(moment, _)| *moment)
            .map(|(_, epoch)| epoch)
    }

    /// The open directory with this uuid.
    pub(super) fn find(&self, uuid: Uuid) -> Option<usize> {
        self.opened.iter().position(|dir| dir.opened.identity.as_ref().is_some_and(|id| id.directory == uuid))
    }

    pub(super) fn has_streams(&self, index: usize) -> bool {
        self.opened[index].journal.as_ref().is_some_and(|journal| !journal.streams.is_empty())
    }

    /// Members that left the configuration but are still there are opened draining. They may know newer members.
    pub(super) fn open_removed_members(&mut self) -> Result<(), Stop> {
        if mutant!(RemovedMemberNotOpened) {
            return Ok(());
        }
        let mut tried = BTreeSet::new();
        loop {
            let Some(epoch) = self.newest_epoch() else { return Ok(()) };
            let next = epoch.members.iter().find(|member| {
                let named = self.opened.iter().map(|dir| &dir.opened.wanted.url);
                let named = named.chain(self.unusable.iter().map(|unusable| &unusable.wanted_url));
                self.find(member.uuid).is_none()
                    && !tried.contains(&member.uuid)
                    && !named.into_iter().any(|url| url.as_str() == member.url)
            });
            let Some(Member { uuid, url, .. }) = next.cloned() else { return Ok(()) };
            tried.insert(uuid);
            let Ok(url) = WalUrl::parse(&url) else { continue };
            let Some(path) = url.file_path() else {
                self.open_removed_bucket(url, uuid)?;
                continue;
            };
            let root = [self.root(&path), path].into_iter().find(|root| {
                let disk = (self.context.disks)(root);
                matches!(identity::read(disk.as_ref()), Ok(Some(found)) if found.directory == uuid)
            });
            let Some(root) = root else { continue };
            let wanted =
                Wanted { url, root, position: None, takes_all_commits: false, draining: true, may_create: false };
            self.open(wanted);
            self.refuse_locked()?;
            self.load()?;
        }
    }

    /// Options of a URL leave the configuration with it: its credentials are the environment's.
    fn open_removed_bucket(&mut self, url: WalUrl, uuid: Uuid) -> Result<(), Stop> {
        let disk = self.context.buckets.disk(&url);
        let found = disk.ok().and_then(|disk| identity::read(disk.as_ref()).ok().flatten());
        if found.is_none_or(|found| found.directory != uuid) {
            return Ok(());
        }
        self.open(Wanted {
            url,
            root: std::path::PathBuf::new(),
            position: None,
            takes_all_commits: false,
            draining: true,
            may_create: false,
        });
        self.load()
    }

    /// A newer grant on storage means that somebody else is the holder now.
    pub(super) fn check_grant(&self, epoch: Option<&EpochFact>) -> Result<(), Stop> {
        let (Some(epoch), Some(grant)) = (epoch, &self.context.grant) else { return Ok(()) };
        let newer = epoch.grant > grant.epoch || (epoch.grant == grant.epoch && epoch.holder != grant.holder);
        if newer {
            return Err(Stop::Ended(Ended::Fenced(format!(
                "storage has grant {} of pod {:?}, ours is {} of pod {:?}: another pod has taken over this writer",
                epoch.grant, epoch.holder, grant.epoch, grant.holder
            ))));
        }
        Ok(())
    }

    /// Every member that was in use is here with its journal, or is given up now. Where none is said to be in use, the first
    /// start was cut short as far as it is known here, and any of them may know more: all have to be here. A grant says itself
    /// what may be begun.
    pub(super) fn await_members(&mut self, epoch: Option<&EpochFact>) -> Result<(), Stop> {
        let Some(epoch) = epoch else { return Ok(()) };
        let mut waiting = Waiting::default();
        let begun = epoch.members.iter().any(|member| member.in_use)
            || self.context.grant.is_some()
            || mutant!(BegunWithoutTheOthers);
        let awaited = |member: &&Member| (member.in_use || !begun) && !mutant!(MembersNotAwaited);
        for member in epoch.members.iter().filter(awaited) {
            let here = self.find(member.uuid);
            let is_enough = here.is_some_and(|index| !begun || self.has_streams(index));
            if is_enough || self.forget.contains(&member.uuid) {
                continue;
            }
            let unusable = match here {
                Some(index) => {
                    let dir = self.opened.remove(index);
                    let reason = "its journal is gone".to_owned();
                    Unusable::of(&dir.opened, DirectoryState::Lost, reason, open::MISSING)
                }
                None => self.take_unusable(member),
            };
            waiting.reasons.push(unusable.sentence());
            self.unusable.push(unusable);
        }
        if waiting.reasons.is_empty() {
            return Ok(());
        }
        Err(Stop::Waiting(Box::new(waiting)))
    }

    /// What stands where a member should be.
    pub(super) fn take_unusable(&mut self, member: &Member) -> Unusable {
        if let Some(index) = self.unusable.iter().position(|unusable| unusable.wanted_url.as_str() == member.url) {
            let mut unusable = self.unusable.remove(index);
            if let (DirectoryState::Forgotten, Some(other)) = (unusable.state, unusable.uuid) {
                // One that was given up before: that it is there is no help.
                unusable.state = DirectoryState::Lost;
                unusable.reason = format!("directory {other} is at its place");
                open::MISSING.clone_into(&mut unusable.remedy);
            }
            unusable.uuid = Some(member.uuid);
            return unusable;
        }
        if let Some(index) = self.opened.iter().position(|dir| dir.opened.wanted.url.as_str() == member.url) {
            // Something else, or nothing, is at its place.
            let dir = self.opened.remove(index);
            let reason = match &dir.opened.identity {
                Some(other) => format!("directory {} is at its place", other.directory),
                None => "it came up empty".to_owned(),
            };
            let mut unusable = Unusable::of(&dir.opened, DirectoryState::Lost, reason, open::MISSING);
            unusable.uuid = Some(member.uuid);
            return unusable;
        }
        let url = WalUrl::parse(&member.url).or_else(|_| WalUrl::parse("file:///unknown"));
        let path = url.as_ref().ok().and_then(WalUrl::file_path).unwrap_or_default();
        let is_bucket = url.as_ref().is_ok_and(|url| url.scheme().is_bucket());
        let root = self.root(&path);
        let reason = format!("{} left the configuration and is not there", member.url);
        let fallback = || self.context.config.wal.wal_urls[0].clone();
        Unusable {
            wanted_url: url.unwrap_or_else(|_| fallback()),
            root,
            position: None,
            uuid: Some(member.uuid),
            state: DirectoryState::Missing,
            found: reason.clone(),
            reason,
            remedy: if is_bucket { open::REMOVED_BUCKET } else { open::MISSING }.to_owned(),
            locked: false,
            absent: false,
            unseen: false,
            opens: false,
        }
    }

    /// What was given up takes no part, though it is here. What the other journals left out because a segment in it, or in
    /// one whose own journal could not be read, holds it is read after all: nobody may have it but they.
    pub(super) fn set_aside_forgotten(&mut self, epoch: Option<&EpochFact>) -> Result<(), Stop> {
        let forgotten = |uuid: Uuid| {
            let said = epoch.is_some_and(|epoch| epoch.forgotten.contains(&uuid)) && !mutant!(ForgottenIsRead);
            self.forget.contains(&uuid) || said
        };
        let (gone, here): (Vec<_>, Vec<_>) = std::mem::take(&mut self.opened)
            .into_iter()
            .partition(|dir| dir.opened.identity.as_ref().is_some_and(|id| forgotten(id.directory)));
        self.opened = here;
        for dir in gone {
            let remedy = "empty the folder to use it anew, or remove its URL";
            let reason = "it was given up by an administrator".to_owned();
            self.unusable.push(Unusable::of(&dir.opened, DirectoryState::Forgotten, reason, remedy));
        }
        let here: BTreeSet<Uuid> = self.identities().collect();
        let gone: BTreeSet<Uuid> = self.relied_on.difference(&here).copied().collect();
        let mut journals = self.opened.iter().filter_map(|dir| dir.journal.as_ref());
        let left_out = journals.any(|journal| journal.speaks_of_segments_in(&gone));
        if left_out && !mutant!(ForgottenSegmentsCount) {
            self.relied_on.clear();
            self.read_anew(Budget::keeping(self.context.memory_limit));
            self.load()?;
        }
        Ok(())
    }

    /// Where nothing readable says who the members are, the log begins anew: not while it may lie in a directory that could
    /// not be looked at. Two logs with the same incarnations would be merged into one when that returns. A grant says itself
    /// what may be begun.
    pub(super) fn begin_only_what_was_seen(&self, epoch: Option<&EpochFact>) -> Result<(), Stop> {
        if epoch.is_some() || self.context.grant.is_some() || mutant!(BegunUnseen) {
            return Ok(());
        }
        let unseen = self.unusable.iter().filter(|unusable| unusable.unseen);
        let reason = |unusable: &Unusable| {
            let sentence = unusable.sentence();
            format!(
                "{sentence}; until then, or until its URL is removed, no new log is begun: it may hold this writer's"
            )
        };
        let reasons: Vec<String> = unseen.map(reason).collect();
        if reasons.is_empty() {
            return Ok(());
        }
        Err(Stop::Waiting(Box::new(Waiting { reasons, ..Waiting::default() })))
    }

    /// Makes what is configured and not there, and gives identities to what is empty.
    pub(super) fn make_new_directories(&mut self) -> Result<(), Stop> {
        let absent: Vec<WalUrl> = self
            .unusable
            .iter()
            .filter(|unusable| unusable.absent)
            .map(|unusable| unusable.wanted_url.clone())
            .collect();
        for wanted in self.wanted().into_iter().filter(|wanted| absent.contains(&wanted.url)) {
            self.unusable.retain(|unusable| unusable.wanted_url != wanted.url);
            self.open(Wanted { may_create: true, ..wanted });
        }
        self.refuse_locked()?;
        self.load()?;
        let known = self.opened.iter().find_map(|dir| dir.opened.identity.as_ref()).map(|identity| identity.writer);
        let writer = self.context.grant.as_ref().map(|grant| grant.writer_uid).or(known).unwrap_or_else(ambient::uuid);
        let writer_id = self.context.config.wal.writer_id.clone().unwrap_or_default();
        let mut failed = Vec::new();
        let mut begun = BTreeSet::new();
        for (index, dir) in self.opened.iter_mut().enumerate().filter(|(_, dir)| dir.opened.identity.is_none()) {
            let identity = Identity::new(ambient::uuid(), writer, writer_id.clone());
            match identity::publish(dir.opened.disk.0.as_ref(), &identity) {
                Ok(()) => {
                    begun.insert(identity.directory);
                    dir.opened.identity = Some(identity);
                }
                Err(error) => failed.push((index, error)),
            }
        }
        for (index, error) in failed.into_iter().rev() {
            let dir = self.opened.remove(index);
            let full = crate::directory::disk::is_full(&error);
            let silent = error.kind() == std::io::ErrorKind::TimedOut && dir.opened.disk.0.objects().is_some();
            let state = if full { DirectoryState::Full } else { DirectoryState::Failed };
            let remedy = if full { "free or add space" } else { "make the folder writable for this process" };
            let reason = format!("cannot write its identity: {error}");
            let unusable = Unusable::of(&dir.opened, state, reason, remedy);
            self.unusable.push(if silent { unusable.silent() } else { unusable });
        }
        // A bucket is taken over by who it is: until then another process may have begun in it.
        self.load()?;
        if let Some(index) = begun.into_iter().filter_map(|uuid| self.find(uuid)).find(|index| self.has_streams(*index))
        {
            let url = &self.opened[index].opened.wanted.url;
            return Err(Stop::wait(format!("another process has begun in {url} at the same time; it is tried again")));
        }
        let journal_wanted = self.context.config.wal.journal_url.as_ref().is_some_and(|url| self.is_granted(url));
        let journal_here = self.opened.iter().any(|dir| dir.opened.wanted.takes_all_commits);
        let any_home = self.opened.iter().any(|dir| dir.opened.wanted.position.is_some());
        if !any_home || (journal_wanted && !journal_here) {
            let reasons = self.unusable.iter().map(Unusable::sentence).collect();
            return Err(Stop::Waiting(Box::new(Waiting { reasons, ..Waiting::default() })));
        }
        Ok(())
    }
}
