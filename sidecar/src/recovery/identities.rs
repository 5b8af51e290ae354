//! Who the open directories are: one place behind two URLs, or two writers, ends a start.

use walstorage_crds::url::WalUrl;

use super::{Attempt, Stop};
use crate::engine::Ended;

pub(super) fn one_directory(one: &WalUrl, other: &WalUrl) -> Stop {
    Stop::Ended(Ended::Configuration(format!("{one} and {other} are one directory: name it once")))
}

impl Attempt<'_> {
    /// One place behind two URLs, two writers: never go on.
    pub(super) fn check_identities(&self) -> Result<(), Stop> {
        for (index, one) in self.opened.iter().enumerate() {
            for other in &self.opened[index + 1..] {
                let (a, b) = (&one.opened, &other.opened);
                let same_place = a.device_inode == b.device_inode;
                let same_identity = a.identity.is_some()
                    && a.identity.as_ref().map(|id| id.directory) == b.identity.as_ref().map(|id| id.directory);
                if same_place || same_identity {
                    return Err(one_directory(&a.wanted.url, &b.wanted.url));
                }
                if let (Some(x), Some(y)) = (&a.identity, &b.identity)
                    && x.writer != y.writer
                {
                    return Err(Stop::Ended(Ended::Refused(format!(
                        "{} belongs to writer {}, but {} to writer {}: a writer's directories are its own; remove the \
                         URL that is not of this writer",
                        a.wanted.url, x.writer, b.wanted.url, y.writer
                    ))));
                }
            }
            let Some(identity) = &one.opened.identity else { continue };
            let ours = self.context.config.wal.writer_id.as_deref().unwrap_or_default();
            let legacy = self.context.config.legacy_wal_dir.as_ref() == Some(&one.opened.wanted.url);
            if identity.writer_id != ours && !legacy {
                return Err(Stop::Ended(Ended::Refused(format!(
                    "{} belongs to writer {:?}, this one is {ours:?}: a writer's directories are its own",
                    one.opened.wanted.url, identity.writer_id
                ))));
            }
            if let Some(grant) = &self.context.grant
                && grant.writer_uid != identity.writer
            {
                return Err(Stop::Ended(Ended::Refused(format!(
                    "{} belongs to writer {}, the grant is for {}",
                    one.opened.wanted.url, identity.writer, grant.writer_uid
                ))));
            }
        }
        Ok(())
    }
}
