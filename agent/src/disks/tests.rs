//! Every disk that can be found in a place, and what is said of it.

use super::*;
use crate::format::Sha256;
use crate::generation::Grade;
use crate::state::CommittedRecord;

const SLOTS: [&str; 3] = ["mon", "tue", "wed"];

struct Office {
    folder: tempfile::TempDir,
    site: SiteName,
    store: StoreName,
    slots: Vec<SlotName>,
    key: SiteKey,
    seen: Vec<DiskRecord>,
}

impl Office {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            site: "townhall".parse().unwrap(),
            store: "usb".parse().unwrap(),
            slots: SLOTS.map(|slot| slot.parse().unwrap()).to_vec(),
            key: SiteKey::generate().unwrap(),
            seen: Vec::new(),
        }
    }

    fn rotation(&self) -> Rotation<'_> {
        let Self { site, store, slots, seen, .. } = self;
        Rotation { site, store, path: self.folder.path(), slots, key: Some(self.key.public()), seen }
    }

    /// The disk that is in becomes this slot.
    fn assign(&self, slot: &str, at: i64) -> Disk {
        let disk = Disk::new(&self.site, &self.store, &slot.parse().unwrap(), time(at));
        disk.write(self.folder.path(), &self.key).unwrap();
        disk
    }

    /// A generation was stored on this disk.
    fn stored(&mut self, disk: &Disk, at: i64) {
        let place = disk.place().unwrap();
        self.seen.retain(|seen| seen.place != place);
        let last = CommittedRecord {
            generation: GenerationId::new(time(at)),
            sequence: 1,
            commit_sha256: Sha256::of(b""),
            committed: time(at),
            grade: Grade::Exact,
            stream_bytes: 1,
            added_bytes: 1,
        };
        self.seen.insert(0, DiskRecord { place, slot: disk.slot.clone(), last: Some(last) });
    }

    fn refused(&self) -> DiskError {
        self.rotation().recognize().unwrap_err()
    }
}

fn time(hour: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + hour * 3600).unwrap()
}

#[test]
fn a_disk_is_known_by_what_lies_on_it() {
    let mut office = Office::new();
    assert!(matches!(office.refused(), DiskError::Unnamed { ref bring, .. } if bring.as_str() == "mon"));
    let monday = office.assign("mon", 0);
    let known = office.rotation().recognize().unwrap();
    assert_eq!((&known.disk, known.place.as_str().len()), (&monday, "usb.mon.".len() + ID_DIGITS));
    assert!(office.rotation().same(&known).is_none(), "nothing is on it yet");
    office.stored(&monday, 1);
    assert!(
        matches!(office.rotation().same(&known), Some(DiskError::Same { ref bring, .. }) if bring.as_str() == "tue")
    );
    let tuesday = office.assign("tue", 2);
    assert_ne!(tuesday.disk, monday.disk);
    office.stored(&tuesday, 3);
    assert!(office.rotation().same(&known).is_none(), "another one was written to meanwhile");
    // After the last one comes the first one.
    let wednesday = office.assign("wed", 4);
    office.stored(&wednesday, 5);
    assert_eq!(office.rotation().bring(None).as_str(), "mon");
}

#[test]
fn what_is_not_this_sites_is_refused_by_its_name() {
    let mut office = Office::new();
    let path = office.folder.path().join(FILE);
    office.assign("mon", 0);
    let text = fs::read_to_string(&path).unwrap();
    // One letter of the document, the signature, the version, another office, another store.
    for (from, to) in [("mon", "tue"), ("\"version\": 1", "\"version\": 9")] {
        fs::write(&path, text.replace(from, to)).unwrap();
        assert!(matches!(office.refused(), DiskError::NotGenuine { .. }), "{to}");
    }
    fs::write(&path, "{").unwrap();
    assert!(matches!(office.refused(), DiskError::NotGenuine { .. }));
    fs::write(&path, text).unwrap();
    fs::remove_file(office.folder.path().join(format!("{FILE}.minisig"))).unwrap();
    assert!(matches!(office.refused(), DiskError::NotGenuine { .. }));
    office.assign("mon", 0);
    assert!(office.rotation().recognize().is_ok());
    office.site = "library".parse().unwrap();
    assert!(matches!(office.refused(), DiskError::Foreign { ref site, .. } if site.as_str() == "townhall"));
    office.site = "townhall".parse().unwrap();
    office.slots.remove(0);
    assert!(matches!(office.refused(), DiskError::NoSlot { .. }));
}

#[test]
fn a_disk_that_was_replaced_stays_replaced_until_it_gets_a_slot_again() {
    let mut office = Office::new();
    let old = office.assign("mon", 0);
    office.stored(&old, 1);
    let old_document = fs::read(office.folder.path().join(FILE)).unwrap();
    let old_signature = fs::read(office.folder.path().join(format!("{FILE}.minisig"))).unwrap();
    let new = office.assign("mon", 2);
    assert!(office.rotation().recognize().is_ok(), "nothing is on the new one yet");
    office.stored(&new, 3);
    fs::write(office.folder.path().join(FILE), old_document).unwrap();
    fs::write(office.folder.path().join(format!("{FILE}.minisig")), old_signature).unwrap();
    assert!(matches!(office.refused(), DiskError::Replaced { .. }));
    office.assign("mon", 4);
    assert!(office.rotation().recognize().is_ok());
}

#[test]
fn what_a_system_leaves_on_a_disk_is_nobodys() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["lost+found", "System Volume Information", ".Trash-1000", "townhall", FILE, "photos", "letter.txt"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    assert_eq!(others(folder.path(), &"townhall".parse().unwrap()).unwrap(), ["letter.txt", "photos"]);
}
