//! Journal files on the file system of this machine's temporary folder, whatever it is.

use super::*;

fn disk(mode: IoMode) -> (tempfile::TempDir, RealDisk) {
    let root = tempfile::tempdir().unwrap();
    let disk = RealDisk::new(root.path().to_owned(), mode);
    (root, disk)
}

/// The flags that the kernel has for the one open file of that name in this process.
fn open_flags(path: &Path) -> i32 {
    let fd = std::fs::read_dir("/proc/self/fd").unwrap().find_map(|entry| {
        let entry = entry.unwrap();
        (std::fs::read_link(entry.path()).ok()? == path).then(|| entry.file_name().into_string().unwrap())
    });
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.expect("it is open"))).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    i32::from_str_radix(flags.trim(), 8).unwrap()
}

#[test]
fn a_slot_is_written_as_the_setting_says_and_read_back_through_the_page_cache() {
    for mode in [IoMode::Auto, IoMode::Direct, IoMode::Buffered] {
        let (root, disk) = disk(mode);
        let path = Path::new("slot");
        let text: Vec<u8> = (0..3 * PAGE).map(|n| n as u8).collect();
        let file = disk.create_slot(path).unwrap();
        // Aligned in memory or not, growing and overwriting.
        assert_eq!(file.write_sync_at(0, &text[1..=PAGE]).unwrap(), PAGE);
        assert_eq!(file.write_sync_at(PAGE as u64, Aligned::copy_of(&text[PAGE..]).as_ref()).unwrap(), 2 * PAGE);
        assert_eq!(file.write_sync_at(0, &text[..PAGE]).unwrap(), PAGE);
        let direct = open_flags(&root.path().join(path)) & OFlags::DIRECT.bits() as i32 != 0;
        assert_eq!(direct, disk.io().direct, "{mode:?}: the flag is what io() says");
        assert!(mode != IoMode::Buffered || !direct);
        assert_eq!(std::fs::read(root.path().join(path)).unwrap(), text);
        let mut back = vec![0; 3 * PAGE + 1];
        assert_eq!(file.read_at(0, &mut back[1..]).unwrap(), 3 * PAGE);
        assert_eq!(back[1..], text, "and by the same way, into any memory");
        assert_eq!(file.len().unwrap(), 3 * PAGE as u64);
        drop(file);
        let again = disk.open_slot(path).unwrap();
        assert_eq!(again.write_sync_at(PAGE as u64, &[7; PAGE]).unwrap(), PAGE);
        assert_eq!(std::fs::read(root.path().join(path)).unwrap()[PAGE..2 * PAGE], [7; PAGE]);
        let exists = disk.create_slot(path).err().unwrap();
        assert_eq!(exists.kind(), io::ErrorKind::AlreadyExists);
    }
}

#[test]
fn ext4_and_xfs_take_direct_writes_with_their_sync() {
    let (root, disk) = disk(IoMode::Auto);
    let magic = rustix::fs::statfs(root.path()).unwrap().f_type as u64;
    let file = disk.create_slot(Path::new("slot")).unwrap();
    file.write_sync_at(0, &[1; PAGE]).unwrap();
    let here = disk.io();
    assert_eq!(here.dsync, matches!(magic, 0xef53 | 0x5846_5342), "{here}, magic {magic:#x}");
    assert!(!here.dsync || here.direct);
}

#[test]
fn a_file_system_that_refuses_a_direct_write_is_written_through_the_page_cache_from_then_on() {
    let (root, disk) = disk(IoMode::Direct);
    let path = root.path().join("slot");
    let slot = disk.create_slot(Path::new("slot")).unwrap();
    slot.write_sync_at(0, &[3; PAGE]).unwrap();
    // An offset that no file has is refused in the way in which a device refuses too small a unit.
    slot.write_sync_at(1 << 63, &[3; PAGE]).unwrap_err();
    assert!(!disk.io().direct && !disk.io().dsync);
    assert_eq!(open_flags(&path) & OFlags::DIRECT.bits() as i32, 0);
    assert_eq!(slot.write_sync_at(PAGE as u64, &[4; PAGE]).unwrap(), PAGE);
    assert_eq!(std::fs::read(&path).unwrap(), [[3; PAGE], [4; PAGE]].concat());
    drop(slot);
    let again = disk.open_slot(Path::new("slot")).unwrap();
    assert_eq!(open_flags(&path) & OFlags::DIRECT.bits() as i32, 0);
    assert_eq!(again.write_sync_at(0, &[5; PAGE]).unwrap(), PAGE);
}
