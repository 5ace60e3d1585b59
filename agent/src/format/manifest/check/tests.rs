//! Manifests that a store might hand out.

use super::*;
use crate::format::manifest::{Extents, Head, Kind};
use crate::format::names::PackName;
use crate::format::{Sha256, VERSION};
use crate::generation::Class;

fn pack(number: u32, order: u32, at: u64, content: u64, patches: bool) -> Pack {
    let name = PackName { number, order, sha256: Sha256::of(&[number as u8, order as u8]), patches };
    Pack { name, at, content, sealed: content / 3 }
}

fn patch() -> PatchExtent {
    PatchExtent { pack: 3, from: 10, packed: 20, gives: 500, reference: 50, reference_bytes: 100, skip: 100, take: 400 }
}

fn manifest() -> Manifest {
    let id: crate::ids::GenerationId = "20261122T233004Z-7f3a".parse().unwrap();
    let head = Head {
        offsite: Kind::Manifest,
        version: VERSION,
        site: "townhall".parse().unwrap(),
        class: Class::Rolling,
        chain: id.clone(),
        generation: id,
        number: 2,
        stream_bytes: 2400,
        full_bytes: 1500,
        entries_at: 2000,
        entries_bytes: 300,
        entries_sha256: Sha256::of(b""),
    };
    let packs = vec![
        pack(0, 1, 0, 1000, false),
        pack(0, 2, 1000, 500, false),
        pack(2, 1, 4000, 500, false),
        pack(2, 2, 0, 90, true),
    ];
    let plain = |from, bytes| Extent::Plain { from, bytes };
    Manifest { head, packs, extents: vec![plain(0, 1500), plain(4000, 500), Extent::Patch(patch())] }
}

#[test]
fn a_manifest_is_read_as_it_was_written() {
    let manifest = manifest();
    let text = manifest.encode().unwrap();
    assert_eq!(Manifest::decode(&text).unwrap(), manifest);
    for cut in 0..text.len() {
        assert!(Manifest::decode(&text[..cut]).is_err(), "accepted when cut after {cut} bytes");
    }
}

/// Something that makes a good manifest a bad one.
type Damage = Box<dyn Fn(&mut Manifest)>;

#[test]
fn what_contradicts_itself_is_refused() {
    let plain = |from, bytes| Extent::Plain { from, bytes };
    let cases: Vec<(&str, Damage)> = vec![
        ("gap between packs", Box::new(move |m| m.extents[0] = plain(1400, 1500))),
        ("empty extent", Box::new(move |m| m.extents.push(plain(0, 0)))),
        ("overflow", Box::new(move |m| m.extents[0] = plain(u64::MAX, 1500))),
        ("short stream", Box::new(|m| m.head.stream_bytes = 2399)),
        ("entries outside", Box::new(|m| m.head.entries_at = u64::MAX)),
        ("overlapping packs", Box::new(|m| m.packs[1].at = 999)),
        ("plain after patch pack", Box::new(|m| m.packs.swap(2, 3))),
        ("huge pack", Box::new(|m| m.packs[2].content = 1 << 50)),
        ("patch from a plain pack", Box::new(|m| m.extents[2] = Extent::Patch(PatchExtent { pack: 0, ..patch() }))),
        ("patch of no pack", Box::new(|m| m.extents[2] = Extent::Patch(PatchExtent { pack: 9, ..patch() }))),
        ("patch past its pack", Box::new(|m| m.extents[2] = Extent::Patch(PatchExtent { packed: 81, ..patch() }))),
        ("bomb", Box::new(|m| m.extents[2] = Extent::Patch(PatchExtent { gives: 1 << 40, ..patch() }))),
        ("take too much", Box::new(|m| m.extents[2] = Extent::Patch(PatchExtent { skip: 101, ..patch() }))),
        (
            "reference in no pack",
            Box::new(|m| m.extents[2] = Extent::Patch(PatchExtent { reference: 4450, ..patch() })),
        ),
    ];
    for (what, spoil) in cases {
        let mut spoiled = manifest();
        spoil(&mut spoiled);
        assert!(check(&spoiled).is_err(), "{what} was accepted");
    }
}

#[test]
fn a_patch_may_refer_to_what_an_increment_brought_whole() {
    let mut manifest = manifest();
    manifest.extents[2] = Extent::Patch(PatchExtent { reference: 4400, ..patch() });
    check(&manifest).unwrap();
}

#[test]
fn a_newer_version_is_named() {
    let text = String::from_utf8(manifest().encode().unwrap()).unwrap().replacen("\"version\":1", "\"version\":2", 1);
    assert!(matches!(Manifest::decode(text.as_bytes()), Err(ManifestError::Newer(2))));
}

#[test]
fn runs_that_follow_each_other_become_one_extent() {
    let mut extents = Extents::default();
    for at in 0..1000 {
        extents.push(Extent::Plain { from: at * 10, bytes: 10 });
    }
    extents.push(Extent::Patch(PatchExtent { skip: 0, take: 7, ..patch() }));
    extents.push(Extent::Patch(PatchExtent { skip: 7, take: 3, ..patch() }));
    extents.push(Extent::Patch(PatchExtent { skip: 3, take: 3, ..patch() }));
    let extents = extents.finish();
    assert_eq!(extents.len(), 3);
    assert_eq!(extents[0], Extent::Plain { from: 0, bytes: 10_000 });
    assert_eq!(extents[1], Extent::Patch(PatchExtent { skip: 0, take: 10, ..patch() }));
}
