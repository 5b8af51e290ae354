//! What the operator's grant says about directories, in a start that has one.
//!
//! 1. What stands in both the configuration and the grant is opened. What the configuration alone names was added after
//!    this pod was made and waits for the next one; what the grant alone names is emptied.
//! 2. A directory is begun anew only where the grant's `init` says so. Where nothing readable says who the members are,
//!    nothing at all is begun before every other granted directory is there: a log never starts again at LSN 1 because
//!    a volume came up empty.
//! 3. What the grant's `forget` gives up becomes gaps, unless it is there.

use uuid::Uuid;
use walstorage_crds::url::{Scheme, WalUrl};

use super::open::{Unusable, Wanted};
use super::{Attempt, Stop, Waiting};
use crate::api::DirectoryState;
use crate::format::facts::EpochFact;

/// What to do about a directory that came up empty and may not be made anew.
const EMPTY: &str = "bring the volume back, or let the operator accept the loss of what it held (annotation \
                     walstorage.dev/accept-loss of the WalWriter)";

impl Attempt<'_> {
    /// Whether this pod may open a URL: any, without a grant.
    pub(super) fn is_granted(&self, url: &WalUrl) -> bool {
        self.context.grant.as_ref().is_none_or(|grant| grant.name_of(url).is_some())
    }

    /// What the configuration does not name any more is emptied.
    pub(super) fn open_granted_only(&mut self) {
        let Some(grant) = &self.context.grant else { return };
        let wal = &self.context.config.wal;
        let configured = |url: &WalUrl| wal.wal_urls.iter().chain(&wal.journal_url).any(|named| named == url);
        let urls = grant.urls.iter().map(|granted| &granted.url).filter(|url| !configured(url));
        let wanted: Vec<Wanted> = urls
            .map(|url| Wanted {
                url: url.clone(),
                root: self.root(&url.file_path().unwrap_or_default()),
                position: None,
                takes_all_commits: false,
                draining: true,
                may_create: false,
            })
            .collect();
        self.open_all(wanted);
    }

    /// What the configuration names and this pod does not have.
    pub(super) fn name_what_is_not_granted(&mut self) {
        let wal = &self.context.config.wal;
        let urls = wal.wal_urls.iter().enumerate().map(|(position, url)| (url, Some(position)));
        let urls = urls.chain(wal.journal_url.iter().map(|url| (url, None)));
        let missing = urls.filter(|(url, _)| !self.is_granted(url)).map(|(url, position)| {
            let state = match url.scheme() {
                Scheme::File => DirectoryState::NotMounted,
                Scheme::S3 | Scheme::Gcs | Scheme::Adls => DirectoryState::PendingRestart,
            };
            Unusable {
                wanted_url: url.clone(),
                root: self.root(&url.file_path().unwrap_or_default()),
                position,
                uuid: None,
                state,
                reason: "the grant of this pod does not name it".to_owned(),
                remedy: "restart the workload: a pod that is made now has it".to_owned(),
                found: String::new(),
                opens: false,
                locked: false,
                absent: false,
                unseen: false,
            }
        });
        let missing: Vec<Unusable> = missing.collect();
        self.unusable.extend(missing);
    }

    /// The members that the grant gives up.
    pub(super) fn given_up(&self, epoch: Option<&EpochFact>) -> Vec<Uuid> {
        let (Some(grant), Some(epoch)) = (&self.context.grant, epoch) else { return Vec::new() };
        let gives_up = |url: &str| WalUrl::parse(url).is_ok_and(|url| grant.gives_up(&url));
        epoch.members.iter().filter(|member| gives_up(&member.url)).map(|member| member.uuid).collect()
    }

    /// What is empty and may not be made anew is lost. Called when every member that was in use is here or given up.
    pub(super) fn keep_to_the_grant(&mut self, epoch: Option<&EpochFact>) -> Result<(), Stop> {
        let Some(grant) = self.context.grant.clone() else { return Ok(()) };
        // Without members nobody says that an identity was never used.
        let (kept, empty): (Vec<_>, Vec<_>) = std::mem::take(&mut self.opened).into_iter().partition(|dir| {
            let streams = dir.journal.as_ref().is_some_and(|journal| !journal.streams.is_empty());
            let known = dir.opened.identity.is_some() && epoch.is_some();
            streams || known || !self.is_granted(&dir.opened.wanted.url) || grant.lets_init(&dir.opened.wanted.url)
        });
        self.opened = kept;
        for dir in empty {
            let reason = "it is empty, and the grant does not let it be begun anew".to_owned();
            self.unusable.push(Unusable::of(&dir.opened, DirectoryState::Lost, reason, EMPTY));
        }
        for unusable in self.unusable.iter_mut().filter(|unusable| unusable.absent) {
            if grant.name_of(&unusable.wanted_url).is_some() && !grant.lets_init(&unusable.wanted_url) {
                unusable.absent = false;
                EMPTY.clone_into(&mut unusable.remedy);
            }
        }
        let held_back: Vec<String> = self
            .unusable
            .iter()
            .filter(|unusable| epoch.is_none() && grant.name_of(&unusable.wanted_url).is_some())
            .filter(|unusable| !grant.lets_init(&unusable.wanted_url))
            .map(Unusable::sentence)
            .collect();
        if !held_back.is_empty() {
            return Err(Stop::Waiting(Box::new(Waiting { reasons: held_back, ..Waiting::default() })));
        }
        // What is to be emptied, or was never used, and is not there needs no word.
        let known = |url: &WalUrl| {
            epoch.is_some_and(|epoch| epoch.members.iter().any(|member| member.in_use && member.url == url.as_str()))
        };
        let config = &self.context.config;
        let configured = |url: &WalUrl| {
            let mut named = config.wal.wal_urls.iter().chain(&config.wal.journal_url).chain(&config.legacy_wal_dir);
            named.any(|named| named == url)
        };
        let draining = |url: &WalUrl| config.wal.url_options.get(url).is_some_and(|options| options.drain);
        self.unusable.retain(|unusable| {
            let url = &unusable.wanted_url;
            let nothing_there = matches!(
                unusable.state,
                DirectoryState::Lost
                    | DirectoryState::Missing
                    | DirectoryState::NotMounted
                    | DirectoryState::PendingRestart
            );
            known(url) || !nothing_there || (configured(url) && !draining(url))
        });
        Ok(())
    }
}
