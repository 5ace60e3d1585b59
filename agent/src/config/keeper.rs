//! The configuration of a keeper: which sites it looks after, how much it may read, by which rules it prunes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::stores::StoreConfig;
use super::table::{Reader, Section};
use super::units::Size;
use super::{ConfigError, Loaded, Problem, load, office, parse, report_twins, retention};
use crate::ids::SiteName;
use crate::keeper::Terms;
use crate::sign::SitePublicKey;

/// A configuration that is good for a keeper.
#[derive(Debug)]
pub struct KeeperConfig {
    /// What it remembers lies here.
    pub state: PathBuf,
    /// Its own signing key; made by its first run.
    pub key: PathBuf,
    /// Every site that is looked after, with its public key.
    pub sites: BTreeMap<SiteName, SitePublicKey>,
    /// Everything is read within so many days.
    pub round_days: u32,
    /// Bytes that one run may read of one store.
    pub budget: u64,
    /// The rules of all sites that have none of their own.
    pub terms: Terms,
    /// Those of the others.
    pub own: BTreeMap<SiteName, Terms>,
    /// The places off site, with the keeper's credentials: at least one.
    pub stores: Vec<StoreConfig>,
}

const STATE: &str = "/var/lib/offsite/keeper";
const KEY: &str = "keeper.key";
const SITES: &str = "sites";
const ROUND_DAYS: u32 = 30;
const BUDGET: u64 = 100 << 30;
/// The largest pack that there is has to fit in.
const BUDGET_MIN: u64 = 5 << 30;

impl KeeperConfig {
    /// Reads and checks the configuration and the keys of the sites. Secrets are not looked up.
    pub fn load(path: &Path) -> Result<Loaded<Self>, ConfigError> {
        load(path, Self::read)
    }

    /// Checks `text`, that is to be a configuration in `folder`.
    pub fn parse(text: &str, folder: &Path) -> Result<Loaded<Self>, Vec<Problem>> {
        parse(text, folder, Self::read)
    }

    fn read(reader: &Reader<'_>, root: &Section<'_, '_>) -> Option<Self> {
        let state = root.path("state").unwrap_or_else(|| STATE.into());
        let keeper = root.section("keeper");
        let key = keeper.path("key").unwrap_or_else(|| reader.folder().join(KEY));
        let folder = keeper.path("sites").unwrap_or_else(|| reader.folder().join(SITES));
        let sites = read_sites(&keeper, &folder);
        let round_days = keeper.integer("round_days", 1..=366).unwrap_or(ROUND_DAYS);
        let mut budget = keeper.parsed("budget").map_or(BUDGET, |Size(bytes)| bytes);
        if budget < BUDGET_MIN {
            keeper.report("budget", format_args!("it has to be {} or more", Size(BUDGET_MIN)));
            budget = BUDGET;
        }
        keeper.finish();
        let calendar = office::read(root);
        let (rules, limits) = retention::far_of(root);
        let terms = Terms { rules, limits, calendar };
        let own = read_own(root, &sites, &terms);
        let sections = root.sections("store");
        if sections.is_empty() {
            root.report("store", "there is no store to look after; add a [[store]]");
        }
        let stores: Vec<StoreConfig> = sections.into_iter().filter_map(StoreConfig::read).collect();
        report_twins(reader, "store", stores.iter().map(|store| store.name.as_str()));
        for store in stores.iter().filter(|store| !store.slots().is_empty()) {
            let what = "a keeper has no disks in rotation: they are pruned where they are written";
            reader.report(store.key("slots"), None, what);
        }
        Some(Self { state, key, sites, round_days, budget, terms, own, stores })
    }
}

/// The tables `[[rules]]`: of those that fit a site, the one that names it most exactly counts. A name that fits no site is
/// refused: the site that was meant would go by the rules of all others.
fn read_own(
    root: &Section<'_, '_>,
    sites: &BTreeMap<SiteName, SitePublicKey>,
    others: &Terms,
) -> BTreeMap<SiteName, Terms> {
    let mut chosen: BTreeMap<SiteName, (usize, Terms)> = BTreeMap::new();
    for section in root.sections("rules") {
        section.must_have("sites", "name the sites that these rules are for: sites = [\"main-street\", \"clinic-*\"]");
        let calendar = if section.has("office") { office::read(&section) } else { others.calendar.clone() };
        let (rules, limits) = retention::far(&section, &others.rules, &others.limits);
        let terms = Terms { rules, limits, calendar };
        for name in section.strings("sites").unwrap_or_default() {
            let (begin, exactness) = match name.strip_suffix('*') {
                Some(begin) => (begin, begin.len()),
                None => (name.as_str(), usize::MAX),
            };
            let fits = |site: &&SiteName| match exactness {
                usize::MAX => site.as_str() == begin,
                _ => site.as_str().starts_with(begin),
            };
            let mut fitting = sites.keys().filter(fits).peekable();
            if fitting.peek().is_none() {
                section.report("sites", format_args!("`{}` fits no site that there is a key of", name.escape_debug()));
            }
            for site in fitting {
                match chosen.get(site) {
                    Some((other, _)) if *other == exactness => {
                        section.report("sites", format_args!("{site} has two rules of its own; leave it out of one"));
                    }
                    Some((other, _)) if *other > exactness => {}
                    _ => drop(chosen.insert(site.clone(), (exactness, terms.clone()))),
                }
            }
        }
        section.finish();
    }
    chosen.into_iter().map(|(site, (_, terms))| (site, terms)).collect()
}

/// The public keys in the files `<site>.pub` of the folder.
fn read_sites(keeper: &Section<'_, '_>, folder: &Path) -> BTreeMap<SiteName, SitePublicKey> {
    let mut sites = BTreeMap::new();
    let files = match fs::read_dir(folder) {
        Ok(files) => files,
        Err(error) => {
            keeper.report("sites", format_args!("the folder {} cannot be read: {error}", folder.display()));
            return sites;
        }
    };
    for path in files.filter_map(|file| file.ok().map(|file| file.path())) {
        let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".pub")) else { continue };
        let report = |what: &dyn std::fmt::Display| {
            keeper.report("sites", format_args!("{} is no key of a site: {what}", path.display()));
        };
        match (name.parse::<SiteName>(), super::read_text(&path).map(|text| text.parse::<SitePublicKey>())) {
            (Ok(site), Ok(Ok(key))) => drop(sites.insert(site, key)),
            (Err(error), _) => report(&error),
            (_, Ok(Err(error))) => report(&error),
            (_, Err(error)) => report(&error),
        }
    }
    if sites.is_empty() {
        keeper.report(
            "sites",
            format_args!(
                "there is no key of a site in {}; `offsite key show` on a site's machine prints it: write it to SITE.pub",
                folder.display()
            ),
        );
    }
    sites
}
