//! A file, or an object, as a scanner's source: positioned reads behind one window that grows to the largest frame and no further.

use rustix::fs::{Advice, fadvise};

use super::OfflineError;
use super::place::{FileAt, Raw};
use crate::format::scan::{ReadFailed, Source};

const WINDOW: usize = 1 << 20;

/// An open file, its length when it was opened, and a window of its bytes.
pub(super) struct FileSource {
    file: Raw,
    len: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl FileSource {
    /// Opens a file for reading what is on storage: what the page cache holds is dropped first, since pages of a failed
    /// sync stay readable there and are nowhere else.
    pub(super) fn open(at: &FileAt) -> Result<Self, OfflineError> {
        Self::of(at.open(), at)
    }

    /// Opens several likewise; objects side by side.
    pub(super) fn open_all(files: &[&FileAt]) -> Result<Vec<Result<Self, OfflineError>>, OfflineError> {
        let Some(first) = files.first() else { return Ok(Vec::new()) };
        let opened = FileAt::open_all(files).map_err(OfflineError::io("opening", first))?;
        Ok(opened.into_iter().zip(files).map(|(opened, at)| Self::of(opened, at)).collect())
    }

    fn of(opened: std::io::Result<Raw>, at: &FileAt) -> Result<Self, OfflineError> {
        let file = opened.map_err(OfflineError::io("opening", at))?;
        let len = file.len().map_err(OfflineError::io("reading the metadata of", at))?;
        let source = Self { file, len, window: Vec::new(), window_at: 0 };
        source.drop_cache();
        Ok(source)
    }

    fn drop_cache(&self) {
        if let Raw::File(file) = &self.file {
            // Advice only: where the file system takes none, reading still works.
            let _ = fadvise(file, 0, None, Advice::DontNeed);
        }
    }

    /// Lets go of what was read.
    pub(super) fn release(&mut self) {
        self.window = Vec::new();
        self.file.release();
    }

    /// Lets go of what was read, but for a small object that is held whole, where `room` is left for it.
    pub(super) fn release_but_small(&mut self, room: &mut u64) {
        self.window = Vec::new();
        match self.file.held_whole() {
            Some(held) if held <= *room => *room -= held,
            _ => self.file.release(),
        }
    }

    fn fill(&mut self, offset: u64, length: usize) -> std::io::Result<()> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        self.window.clear();
        self.window.resize(length.min(left), 0);
        self.window_at = offset;
        let mut filled = 0;
        while filled < self.window.len() {
            match self.file.read_at(&mut self.window[filled..], offset + filled as u64) {
                // The file became shorter since it was opened.
                Ok(0) => self.window.truncate(filled),
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.window.clear();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Up to `length` bytes at `offset`, and nothing ahead of them.
    pub(super) fn exactly(&mut self, offset: u64, length: usize) -> Result<&[u8], ReadFailed> {
        if self.held(offset, length).is_none() {
            self.fill(offset, length).map_err(|error| ReadFailed(error.to_string()))?;
        }
        Ok(self.held(offset, length).unwrap_or_default())
    }

    fn held(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let from = usize::try_from(offset.checked_sub(self.window_at)?).ok()?;
        let rest = self.window.get(from..)?;
        let at_end = self.window_at + self.window.len() as u64 >= self.len;
        match rest.get(..length) {
            Some(bytes) => Some(bytes),
            None => at_end.then_some(rest),
        }
    }
}

impl Drop for FileSource {
    fn drop(&mut self) {
        // Reading a whole journal must not push out what a running program has in the cache.
        self.drop_cache();
    }
}

impl Source for FileSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn read(&mut self, offset: u64, length: usize) -> Result<&[u8], ReadFailed> {
        if self.held(offset, length).is_none() {
            let read_ahead = self.fill(offset, length.max(WINDOW));
            if read_ahead.is_err() {
                self.fill(offset, length).map_err(|error| ReadFailed(error.to_string()))?;
            }
        }
        let from = usize::try_from(offset.saturating_sub(self.window_at)).unwrap_or(usize::MAX);
        let rest = self.window.get(from..).unwrap_or_default();
        Ok(rest.get(..length).unwrap_or(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_reads_like_a_slice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let bytes: Vec<u8> = (0..3 * WINDOW as u32 + 77).map(|n| (n % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let mut source = FileSource::open(&FileAt::file(path.clone())).unwrap();
        let mut slice = bytes.as_slice();
        assert_eq!(source.len(), bytes.len() as u64);
        for offset in [0, 1, 4096, 4096, WINDOW as u64 - 1, 0, bytes.len() as u64 - 5, bytes.len() as u64 + 5] {
            for length in [0, 1, 4096, WINDOW + 5, 2 * WINDOW] {
                assert_eq!(source.read(offset, length), Source::read(&mut slice, offset, length), "{offset} {length}");
            }
        }
    }

    #[test]
    fn a_folder_cannot_be_opened_as_a_file_or_reads_as_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut source = FileSource::open(&FileAt::file(dir.path().to_owned())).unwrap();
        assert!(source.len == 0 || source.read(0, 10).is_err());
        assert!(matches!(FileSource::open(&FileAt::file(dir.path().join("none"))), Err(OfflineError::Io { .. })));
    }
}
