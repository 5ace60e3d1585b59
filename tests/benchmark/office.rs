//! An office's data, the same for the same seed and size: a database, a dump of it, and documents.

use std::path::{Path, PathBuf};

use tests::Rng;

use crate::database::{self, Day, Words};
use crate::measure::{self, shell};

/// An office in a folder.
pub(crate) struct Office {
    /// The folder.
    pub(crate) root: PathBuf,
    words: Words,
    seed: u64,
}

/// Of 2 GiB of database: bytes of documents, and how many there are.
const DOCUMENTS_BYTES: u64 = 700 << 20;
const DOCUMENTS: u64 = 5000;
const WHOLE: u64 = 2 << 30;

impl Office {
    /// The office of this seed with `database_bytes` of database in `root`, made if it is not there.
    pub(crate) fn make(root: &Path, seed: u64, database_bytes: u64) -> Self {
        let office = Self { root: root.to_owned(), words: Words::new(), seed };
        let finished = root.join(".finished");
        if finished.exists() {
            return office;
        }
        std::fs::remove_dir_all(root).ok();
        std::fs::create_dir_all(root).unwrap();
        let mut rng = Rng::new(seed);
        database::create(&office.database(), &office.words, &mut rng, database_bytes);
        // The first day splits pages that were filled to the brim; an office's database has long had that behind it.
        database::one_day(&office.database(), &office.words, &mut rng, Day::GROWING);
        std::fs::create_dir(root.join("dump")).unwrap();
        database::dump(&office.database(), &office.dump());
        let share = |whole: u64| (u128::from(whole) * u128::from(database_bytes) / u128::from(WHOLE)) as u64;
        office.write_documents(&mut rng, share(DOCUMENTS).max(100), share(DOCUMENTS_BYTES));
        std::fs::write(finished, "").unwrap();
        office
    }

    /// A copy of it at `root`, as of now.
    pub(crate) fn copy(&self, root: &Path, log: &Path) -> Self {
        std::fs::remove_dir_all(root).ok();
        let (from, to) = (self.root.display(), root.display());
        measure::run(&mut shell(&format!("cp -a --reflink=auto '{from}' '{to}'; rm '{to}/.finished'")), log);
        Self { root: root.to_owned(), words: Words::new(), seed: self.seed }
    }

    /// The database.
    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("ledger.db")
    }

    /// The dump.
    pub(crate) fn dump(&self) -> PathBuf {
        self.root.join("dump/ledger.sql")
    }

    /// The folder with the documents.
    pub(crate) fn documents(&self) -> PathBuf {
        self.root.join("documents")
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        tests::office::paths(&self.root)
            .iter()
            .map(|path| path.metadata().unwrap())
            .filter(|m| m.is_file())
            .map(|m| m.len())
            .sum()
    }

    /// Makes database and dump look changed, though their content is as it was.
    pub(crate) fn touch(&self, log: &Path) {
        let (database, dump) = (self.database(), self.dump());
        let (database, dump) = (database.display(), dump.display());
        measure::run(
            &mut shell(&format!("touch '{database}'; cp '{dump}' '{dump}.new'; mv '{dump}.new' '{dump}'")),
            log,
        );
    }

    /// The work of day `day`: in the database, with the dump made anew, and on 1 % of the documents, which are answered.
    /// On the second day the database grows; on those that follow, 1 % of its rows change.
    pub(crate) fn one_day(&self, day: u64) -> Vec<PathBuf> {
        let mut rng = Rng::new(self.seed ^ (day << 32));
        let work = if day == 2 { Day::GROWING } else { Day::CHANGING };
        database::one_day(&self.database(), &self.words, &mut rng, work);
        let new = self.dump().with_extension("new");
        database::dump(&self.database(), &new);
        std::fs::rename(new, self.dump()).unwrap();
        let documents: Vec<PathBuf> =
            tests::office::paths(&self.documents()).into_iter().filter(|path| path.is_file()).collect();
        let mut changed = Vec::new();
        for _ in 0..documents.len().div_ceil(100) {
            let path = rng.pick(&documents).clone();
            if !changed.contains(&path) {
                self.edit(&path, &mut rng);
                changed.push(path);
            }
        }
        changed
    }

    /// A text gets a paragraph in its middle; anything else is saved anew and has nothing in common with what it was.
    fn edit(&self, path: &Path, rng: &mut Rng) {
        let mut content = std::fs::read(path).unwrap();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let paragraph = self.words.text(rng, 200);
            let middle = content.len() / 2;
            content.splice(middle..middle, paragraph.into_bytes());
        } else {
            content = rng.bytes(content.len());
        }
        std::fs::write(path, content).unwrap();
    }

    fn write_documents(&self, rng: &mut Rng, count: u64, bytes: u64) {
        let mean = bytes / count;
        for number in 0..count {
            let folder = self.documents().join(format!("{:03}", number / 200));
            std::fs::create_dir_all(&folder).unwrap();
            // Most are small, and some are large: a product of two has the mean of both and a long tail.
            let size = (rng.below(2048) * rng.below(2048) * mean / (1024 * 1024)) as usize;
            let (kind, content) = match rng.below(100) {
                0..45 => ("txt", self.words.text(rng, size as u64 / 6).into_bytes()),
                45..80 => ("jpg", rng.bytes(size)),
                _ => ("docx", self.half_compressed(rng, size)),
            };
            std::fs::write(folder.join(format!("{number:05}.{kind}")), content).unwrap();
        }
        std::fs::create_dir_all(self.documents()).unwrap();
    }

    /// Stretches of compressed data with names and numbers between them, as archives have.
    fn half_compressed(&self, rng: &mut Rng, bytes: usize) -> Vec<u8> {
        let mut content = Vec::with_capacity(bytes);
        while content.len() < bytes {
            content.extend_from_slice(self.words.text(rng, 60).as_bytes());
            let stretch = rng.between(2000, 40_000) as usize;
            content.extend_from_slice(&rng.bytes(stretch));
        }
        content.truncate(bytes);
        content
    }
}
