//! Whether a directory that failed can be written again: it is still the same one, and bytes written and synced now are
//! read back from the device.

use std::path::PathBuf;

use crate::ambient;
use crate::directory::identity;
use crate::format::limits::PAGE;
use crate::recovery::Handle;

/// Writes, syncs, reads back and deletes a file.
///
/// # Errors
/// What went wrong, for people.
pub(super) fn probe(handle: &Handle) -> Result<(), String> {
    let disk = handle.disk.0.as_ref();
    let place = disk.device_inode().map_err(|error| format!("it is not there: {error}"))?;
    if place != handle.place {
        return Err("another folder is at its place: mount the right one again".to_owned());
    }
    match identity::read(disk) {
        Ok(Some(found)) if found.directory == handle.identity.directory => {}
        Ok(Some(found)) => return Err(format!("directory {} is at its place", found.directory)),
        Ok(None) => return Err("its identity is gone".to_owned()),
        Err(error) => return Err(error.to_string()),
    }
    let path = PathBuf::from(format!("{}/probe.{}.tmp", identity::WAL_DIR, ambient::uuid()));
    let probed = (|| {
        let file = disk.create_excl(&path)?;
        let wrote: Vec<u8> = ambient::uuid().as_bytes().repeat(PAGE / 16);
        if file.write_at(0, &wrote)? != wrote.len() {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        file.sync_data()?;
        file.drop_cache()?;
        let mut read = vec![0; PAGE];
        let there = file.read_at(0, &mut read)?;
        if there != wrote.len() || read != wrote {
            return Err(std::io::Error::other("what was read back is not what was written"));
        }
        Ok(())
    })();
    let removed = disk.unlink(&path).and_then(|()| disk.sync_dir(identity::WAL_DIR.as_ref()));
    probed.and(removed).map_err(|error: std::io::Error| format!("a probe failed: {error}"))
}
