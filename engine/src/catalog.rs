//! Names to logs, and what of each log is committed.
//!
//! The committed ends of all logs are one persistent map: a commit changes the entries of its logs, and whoever took a
//! copy before (a snapshot of the whole store, a checkpoint) keeps the cut of his version.
//!
//! Named snapshots are logs too, which no name leads to: they are found by their label.
//!
//! A log that nobody asked for since the store was opened is dormant ([`crate::dormant`]) and in no map: it belongs to each version
//! of the store since, as it was found. Whoever asks for it has it made, and put into all versions that somebody holds. What leads to
//! it is read while the dormant logs are locked: the checkpoint that lets the collector have what is read waits for that.
//!
//! Order of locks: names that are reserved; dormant logs; the changed ones; then the newest version, held ones, names.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use lanterman_format::Structure;
use lanterman_format::catalog::CatalogEntryView;
use lanterman_format::ids::{LogId, Version};
use lanterman_format::name::LogName;
use lanterman_format::settings::Settings;
use lanterman_format::weakened;
use parking_lot::{Condvar, Mutex, RwLock};

use crate::dormant::{Dormant, log_of};
use crate::error::{Damage, Error, Result};
use crate::listed::{Listed, NewListing};
use crate::log::{Committed, LogState, Root};
use crate::number_map::NumberMap;
use crate::source::StoreSource;

/// All logs in one version of the store, but for those that are dormant; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    pub(crate) version: Version,
    pub(crate) logs: NumberMap<Committed>,
}

/// A version that somebody holds: logs that are made later are put into it.
#[derive(Debug)]
pub(crate) struct HeldCut {
    pub(crate) version: Version,
    logs: Mutex<NumberMap<Committed>>,
}

impl HeldCut {
    /// Its logs, but for those that are dormant at the moment.
    pub(crate) fn logs(&self) -> NumberMap<Committed> {
        self.logs.lock().clone()
    }
}

/// What a named snapshot is listed by: whether the store made it by itself, its label, the name of its log, and the
/// version.
type SnapshotKey = (bool, String, LogName, u64);

/// A log that is found by its name, which it has itself.
#[derive(Debug)]
struct ByName(Arc<LogState>);

impl Borrow<str> for ByName {
    fn borrow(&self) -> &str {
        self.0.name.as_str()
    }
}

impl Hash for ByName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.as_str().hash(state);
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for ByName {}

/// The catalog of an open store.
#[derive(Debug)]
pub(crate) struct Catalog {
    names: RwLock<HashSet<ByName>>,
    snapshots: RwLock<BTreeMap<SnapshotKey, Arc<LogState>>>,
    /// Names of logs that are being made.
    reserved: Mutex<HashSet<LogName>>,
    released: Condvar,
    newest: Mutex<Cut>,
    dormant: RwLock<Dormant>,
    /// Versions that are held and lack dormant logs, and some that are not held any more.
    held: Mutex<Vec<Weak<HeldCut>>>,
    version: AtomicU64,
    next_log: AtomicU64,
    dirty: Mutex<Dirty>,
    /// Pages that could not be read when the store was opened for reading. A name that is not known may be on one.
    lost_pages: Vec<Damage>,
    /// Pages with dormant logs that could not be read when they were looked for.
    damaged_pages: Mutex<Vec<Damage>>,
    source: Arc<StoreSource>,
    /// The logs of a store that is only read as they were before it began anew at a checkpoint; those that are found
    /// again leave.
    former: Mutex<BTreeMap<u64, Arc<LogState>>>,
}

/// Logs that changed since the last checkpoint took them, each once.
#[derive(Debug)]
struct Dirty {
    logs: Vec<Arc<LogState>>,
    /// Rises with each checkpoint that takes them. A log whose own number is the same is among them: so a commit looks at the
    /// log alone, and taking all of them is one step, however many there are.
    turn: u64,
}

impl Dirty {
    fn add(&mut self, log: &Arc<LogState>) {
        if log.listed_in() != self.turn {
            log.set_listed_in(self.turn);
            self.logs.push(Arc::clone(log));
        }
    }

    fn take(&mut self) -> Vec<Arc<LogState>> {
        if !weakened!("changed-logs-not-taken-anew") {
            self.turn = self.turn.saturating_add(1);
        }
        std::mem::take(&mut self.logs)
    }
}

impl Default for Dirty {
    fn default() -> Self {
        // No log is listed in turn 0.
        Dirty {
            logs: Vec::new(),
            turn: 1,
        }
    }
}

/// A name that nobody else can give to a log; it is let go of when this is dropped.
#[derive(Debug)]
pub(crate) struct Reserved<'a> {
    catalog: &'a Catalog,
    name: LogName,
}

impl Reserved<'_> {
    pub(crate) fn name(&self) -> &LogName {
        &self.name
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.catalog.reserved.lock().remove(&self.name);
        self.catalog.released.notify_all();
    }
}

impl Catalog {
    pub(crate) fn new(
        version: Version,
        next_log: u64,
        lost_pages: Vec<Damage>,
        dormant: Dormant,
        source: Arc<StoreSource>,
    ) -> Self {
        Catalog {
            names: RwLock::default(),
            snapshots: RwLock::default(),
            reserved: Mutex::default(),
            released: Condvar::new(),
            former: Mutex::default(),
            newest: Mutex::new(Cut {
                version,
                logs: NumberMap::default(),
            }),
            dormant: RwLock::new(dormant),
            held: Mutex::default(),
            version: AtomicU64::new(version.get()),
            next_log: AtomicU64::new(next_log),
            dirty: Mutex::default(),
            lost_pages,
            damaged_pages: Mutex::default(),
            source,
        }
    }

    /// Pages that could not be read when the store was opened, and whose logs are unknown.
    pub(crate) fn lost_pages(&self) -> &[Damage] {
        &self.lost_pages
    }

    /// Pages that could not be read since, whose logs are told by the error for who asks for one.
    pub(crate) fn damaged_pages(&self) -> Vec<Damage> {
        self.damaged_pages.lock().clone()
    }

    /// Notes that what dormant logs are on cannot be read, once for each place.
    fn note_damage(&self, error: Error) {
        tracing::error!(%error, "a page of the catalog cannot be read");
        if let Error::Damaged(damage) = error {
            let mut known = self.damaged_pages.lock();
            let place = |damage: &Damage| (damage.segment, damage.position);
            if known.iter().all(|known| place(known) != place(&damage)) {
                known.push(*damage);
            }
        }
    }

    /// The log of that name, made now if it is dormant.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Unreadable`], [`Error::Io`] if it may be a dormant one, and what leads to it cannot be read.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Arc<LogState>>> {
        match self.find_made(name) {
            Some(found) => Ok(Some(found)),
            None => self.find_dormant(name),
        }
    }

    #[inline]
    fn find_made(&self, name: &str) -> Option<Arc<LogState>> {
        self.names.read().get(name).map(|found| Arc::clone(&found.0))
    }

    #[cold]
    fn find_dormant(&self, name: &str) -> Result<Option<Arc<LogState>>> {
        let dormant = self.dormant.read().find(name, &self.source)?;
        if let Some(log) = dormant
            && let Some(woken) = self.wake(log, Some(name))?
        {
            return Ok(Some(woken));
        }
        // Or somebody else has made it just now.
        Ok(self.find_made(name))
    }

    /// Makes a dormant log, in all versions that there are.
    fn wake(&self, log: LogId, name: Option<&str>) -> Result<Option<Arc<LogState>>> {
        let mut dormant = self.dormant.write();
        let Some(committed) = dormant.wake(log, name, &self.source)? else {
            return Ok(None);
        };
        let (log, id) = (Arc::clone(&committed.log), log.get());
        if !weakened!("woken-log-missing-in-held-versions") {
            let held = self.held.lock();
            for cut in held.iter().filter_map(Weak::upgrade) {
                cut.logs.lock().insert(id, committed.clone());
            }
        }
        self.newest.lock().logs.insert(id, committed);
        self.names.write().insert(ByName(Arc::clone(&log)));
        Ok(Some(log))
    }

    /// Makes those dormant logs of which `is_wanted` says so.
    pub(crate) fn wake_if(&self, is_wanted: impl Fn(&LogState) -> bool) {
        let mut wanted = Vec::new();
        self.look_at_dormant(|log| wanted.extend(is_wanted(log).then_some(log.id)));
        wanted.into_iter().for_each(|log| self.wake_or_note(log));
    }

    /// Shows all logs, each once: dormant ones as logs that are let go of again.
    pub(crate) fn look_at_all(&self, mut look: impl FnMut(&Arc<LogState>)) {
        let mut seen = Vec::new();
        self.look_at_dormant(|log| {
            look(log);
            seen.push(log.id);
        });
        for log in self.awake() {
            // By now it may have been woken.
            if seen.binary_search(&log.id).is_err() {
                look(&log);
            }
        }
    }

    /// Shows dormant logs as logs that are let go of again, by rising ids; nobody waits for `look`. Those of a page that cannot be
    /// read are passed over.
    fn look_at_dormant(&self, mut look: impl FnMut(&Arc<LogState>)) {
        let mut from = 0;
        loop {
            let found = self.dormant.read().pages_from(from, &self.source).next();
            let Some((number, page)) = found else { return };
            match page {
                Ok(page) => page.made().for_each(|log| look(&log)),
                Err(error) => self.note_damage(error),
            }
            from = number.saturating_add(1);
        }
    }

    fn wake_or_note(&self, log: LogId) {
        if let Err(error) = self.wake(log, None) {
            self.note_damage(error);
        }
    }

    /// Makes all dormant logs.
    fn wake_all(&self) {
        let dormant = self.dormant.read().ids();
        dormant.into_iter().for_each(|log| self.wake_or_note(log));
    }

    /// The catalog as the newest checkpoint has it.
    pub(crate) fn listed(&self) -> Listed {
        self.dormant.read().listed.clone()
    }

    /// A checkpoint was made. Dormant logs are on its pages as they were.
    pub(crate) fn renew_listed(&self, listing: NewListing) {
        self.dormant.write().listed.renew(listing);
    }

    /// Lets go of what was loaded to find names.
    pub(crate) fn trim_names(&self) {
        self.dormant.write().listed.trim();
    }

    /// The newest version, to be held.
    pub(crate) fn hold_cut(&self) -> Arc<HeldCut> {
        // No log wakes between the copy and its being known.
        let dormant = self.dormant.read();
        let Cut { version, logs } = self.cut();
        let cut = Arc::new(HeldCut {
            version,
            logs: Mutex::new(logs),
        });
        if !dormant.is_empty() {
            let mut held = self.held.lock();
            if held.len() == held.capacity() {
                held.retain(|cut| cut.strong_count() > 0);
            }
            held.push(Arc::downgrade(&cut));
        }
        cut
    }

    /// Names of the logs of a version that is held.
    pub(crate) fn names_in(&self, cut: &HeldCut) -> Vec<String> {
        // None wakes between the two looks.
        let dormant = self.dormant.read();
        let logs = cut.logs();
        let named = logs.values().filter(|committed| committed.is_named());
        let mut names: Vec<_> = named
            .map(|committed| committed.log.name.as_str().to_owned())
            .collect();
        for (_, page) in dormant.pages_from(0, &self.source) {
            match page {
                Ok(page) => names.extend(page.entries().map(|entry| entry.name.to_owned())),
                Err(error) => self.note_damage(error),
            }
        }
        names
    }

    /// The log of that name, made by `make` if there is none; and whether it was made.
    ///
    /// # Errors
    /// As of [`Self::find`].
    pub(crate) fn find_or_insert(
        &self,
        name: &LogName,
        make: impl FnOnce(LogId) -> Arc<LogState>,
    ) -> Result<(Arc<LogState>, bool)> {
        if let Some(found) = self.find(name.as_str())? {
            return Ok((found, false));
        }
        let mut reserved = self.reserved.lock();
        while reserved.contains(name) {
            self.released.wait(&mut reserved);
        }
        let mut names = self.names.write();
        if let Some(found) = names.get(name.as_str()) {
            return Ok((Arc::clone(&found.0), false));
        }
        let log = make(self.new_log()?);
        names.insert(ByName(Arc::clone(&log)));
        Ok((log, true))
    }

    /// Keeps the name for a log that is about to be made; nothing if there is one, or one is being made. Whoever wants
    /// a log of that name meanwhile waits.
    ///
    /// # Errors
    /// As of [`Self::find`].
    pub(crate) fn reserve(&self, name: &LogName) -> Result<Option<Reserved<'_>>> {
        let mut reserved = self.reserved.lock();
        // In this order: a log that wakes in between is found among the names.
        let dormant = self.dormant.read().find(name.as_str(), &self.source)?;
        if dormant.is_some() && !weakened!("name-of-dormant-log-free") {
            return Ok(None);
        }
        if self.names.read().contains(name.as_str()) || !reserved.insert(name.clone()) {
            return Ok(None);
        }
        Ok(Some(Reserved {
            catalog: self,
            name: name.clone(),
        }))
    }

    /// A number for a log that is about to be made.
    ///
    /// # Errors
    /// [`Error::Damaged`] if a file says that there is none left.
    pub(crate) fn new_log(&self) -> Result<LogId> {
        let segments = self.source.segments();
        let taken = segments.take_number(&self.next_log, Structure::Checkpoint);
        taken.map(LogId::new)
    }

    /// Lets a log be found: by its name, or by its label if it is a named snapshot.
    pub(crate) fn reveal(&self, log: &Arc<LogState>) {
        match snapshot_key(log) {
            Some(key) => {
                self.snapshots.write().insert(key, Arc::clone(log));
            }
            None => {
                // Another log of that name, if any, makes room: a set keeps the one that it has.
                self.names.write().replace(ByName(Arc::clone(log)));
            }
        }
    }

    /// Nobody finds the log any more.
    pub(crate) fn hide(&self, log: &Arc<LogState>) {
        if let Some(key) = snapshot_key(log) {
            let mut snapshots = self.snapshots.write();
            if snapshots.get(&key).is_some_and(|found| Arc::ptr_eq(found, log)) {
                snapshots.remove(&key);
            }
            return;
        }
        let mut names = self.names.write();
        if names
            .get(log.name.as_str())
            .is_some_and(|found| Arc::ptr_eq(&found.0, log))
        {
            names.remove(log.name.as_str());
        }
    }

    /// Puts a log into the newest version, for the next checkpoint; nobody finds it before it is revealed.
    pub(crate) fn insert_nameless(&self, log: &Arc<LogState>, end: u64) {
        let mut dirty = self.dirty.lock();
        let mut newest = self.newest.lock();
        let version = newest.version;
        let committed = Committed {
            log: Arc::clone(log),
            end,
            created: version,
            modified: version,
        };
        newest.logs.insert(log.id.get(), committed);
        dirty.add(log);
    }

    /// Takes back what [`Self::insert_nameless`] did.
    pub(crate) fn forget(&self, log: &Arc<LogState>) {
        self.newest.lock().logs.remove(log.id.get());
    }

    /// All named snapshots, by label and log.
    pub(crate) fn snapshots(&self) -> Vec<Arc<LogState>> {
        self.snapshots.read().values().cloned().collect()
    }

    /// Before a store that is only read begins anew at a checkpoint.
    pub(crate) fn begin_anew(&self) {
        let logs = self.cut().logs;
        let known = logs
            .values()
            .map(|entry| (entry.log.id.get(), Arc::clone(&entry.log)));
        *self.former.lock() = known.collect();
    }

    /// A log that was known before and is found again.
    pub(crate) fn found_again(&self, id: LogId) -> Option<Arc<LogState>> {
        self.former.lock().remove(&id.get())
    }

    /// Whether a log of that name may be made: there is none, or none that was found again so far.
    ///
    /// # Errors
    /// As of [`Self::find`].
    pub(crate) fn is_name_free(&self, name: &str) -> Result<bool> {
        let found = self.find(name)?;
        let former = self.former.lock();
        Ok(found.is_none_or(|log| former.contains_key(&log.id.get())))
    }

    /// Whether another log was made of that name, but for those that were not found again so far.
    pub(crate) fn has_other(&self, name: &str, log: LogId) -> bool {
        let other = self.find_made(name).filter(|found| found.id != log);
        other.is_some_and(|other| !self.former.lock().contains_key(&other.id.get()))
    }

    /// Behind the journal: what was not found again is there no more.
    pub(crate) fn end_anew(&self) {
        for (id, log) in std::mem::take(&mut *self.former.lock()) {
            log.set_dropped();
            self.hide(&log);
            self.newest.lock().logs.remove(id);
        }
    }

    /// Makes the log of an entry of a checkpoint, with this root. A reader that jumps to a newer checkpoint has it already: whoever
    /// holds the log goes on with the same one.
    pub(crate) fn restore_entry(&self, entry: &CatalogEntryView<'_>, root: Root, settings: Settings) {
        self.dormant.write().forget(entry.log);
        if let Some(known) = self.made_by_id(entry.log.get()) {
            self.found_again(entry.log);
            let end = root.end();
            known.replace_root(root);
            known.set_settings(settings);
            self.restore(Committed {
                log: known,
                end,
                created: entry.created_version,
                modified: entry.modified_version,
            });
        } else if let Some(made) = log_of(entry, root, settings) {
            self.restore(made);
        }
    }

    /// Takes up a log that a checkpoint or the journal knows.
    pub(crate) fn restore(&self, committed: Committed) {
        let id = committed.log.id.get();
        self.raise_next_log(id.saturating_add(1));
        self.reveal(&committed.log);
        self.newest.lock().logs.insert(id, committed);
    }

    /// Makes `version` the newest, with the ends of the logs that it changed.
    pub(crate) fn advance(&self, version: Version, changed: &[(Arc<LogState>, u64)]) {
        let mut dirty = self.dirty.lock();
        let mut newest = self.newest.lock();
        newest.version = version;
        for (log, end) in changed {
            let id = log.id.get();
            if log.is_dropped() {
                newest.logs.remove(id);
            } else if let Some(entry) = newest.logs.get_mut(id) {
                entry.end = *end;
                entry.modified = version;
            } else {
                let entry = Committed {
                    log: Arc::clone(log),
                    end: *end,
                    created: version,
                    modified: version,
                };
                newest.logs.insert(id, entry);
            }
            dirty.add(log);
        }
        drop(newest);
        self.version.store(version.get(), Ordering::Release);
    }

    /// The log of that number, made now if it is dormant.
    ///
    /// # Errors
    /// As of [`Self::find`].
    pub(crate) fn by_id(&self, id: u64) -> Result<Option<Arc<LogState>>> {
        if let Some(found) = self.made_by_id(id) {
            return Ok(Some(found));
        }
        let woken = self.wake(LogId::new(id), None)?;
        // Or somebody else has made it just now.
        Ok(woken.or_else(|| self.made_by_id(id)))
    }

    fn made_by_id(&self, id: u64) -> Option<Arc<LogState>> {
        let newest = self.newest.lock();
        newest.logs.get(id).map(|committed| Arc::clone(&committed.log))
    }

    /// Notes that a log differs from what the newest checkpoint has of it.
    pub(crate) fn mark_dirty(&self, log: &Arc<LogState>) {
        self.dirty.lock().add(log);
    }

    /// Jumps to a version that a checkpoint has.
    pub(crate) fn set_version(&self, version: Version) {
        self.newest.lock().version = version;
        self.version.store(version.get(), Ordering::Release);
    }

    /// The newest version.
    pub(crate) fn version(&self) -> Version {
        Version::new(self.version.load(Ordering::Acquire))
    }

    /// All logs as of the newest version, but for those that are dormant.
    pub(crate) fn cut(&self) -> Cut {
        self.newest.lock().clone()
    }

    /// The newest cut, and the logs that changed since this was last called.
    pub(crate) fn cut_for_checkpoint(&self) -> (Cut, Vec<Arc<LogState>>) {
        let mut dirty = self.dirty.lock();
        let cut = self.newest.lock().clone();
        (cut, dirty.take())
    }

    /// Gives back the logs of a checkpoint that failed, so that the next one takes them.
    pub(crate) fn still_dirty(&self, logs: BTreeMap<u64, Arc<LogState>>) {
        let mut dirty = self.dirty.lock();
        logs.values().for_each(|log| dirty.add(log));
    }

    pub(crate) fn has_dirty(&self) -> bool {
        !self.dirty.lock().logs.is_empty()
    }

    /// Sees to it that new logs get numbers from `next` on.
    pub(crate) fn raise_next_log(&self, next: u64) {
        self.next_log.fetch_max(next, Ordering::AcqRel);
    }

    pub(crate) fn next_log(&self) -> u64 {
        self.next_log.load(Ordering::Acquire)
    }

    /// Logs that hold chunks, in the order of their ids.
    pub(crate) fn with_memory(&self) -> Vec<Arc<LogState>> {
        let holds = |log: &&Arc<LogState>| log.holds_memory();
        let names = self.names.read();
        let mut held: Vec<_> = names
            .iter()
            .map(|found| &found.0)
            .filter(holds)
            .cloned()
            .collect();
        drop(names);
        held.extend(self.snapshots.read().values().filter(holds).cloned());
        in_order(held)
    }

    /// All logs and all named snapshots, also those that nobody finds yet, but for dormant ones; in the order of their ids.
    pub(crate) fn everything(&self) -> Vec<Arc<LogState>> {
        let cut = self.cut();
        // Of the size that it will have for the most part: growing would need the same again.
        let mut all = Vec::with_capacity(self.names.read().len());
        all.extend(cut.logs.values().map(|entry| Arc::clone(&entry.log)));
        let is_new = |log: &&Arc<LogState>| cut.logs.get(log.id.get()).is_none();
        let names = self.names.read();
        all.extend(names.iter().map(|found| &found.0).filter(is_new).cloned());
        drop(names);
        all.extend(self.snapshots.read().values().filter(is_new).cloned());
        let mut all = in_order(all);
        all.dedup_by_key(|log| log.id.get());
        all
    }

    /// All logs that this process knows, committed or not, in the order of their ids; dormant ones are made.
    pub(crate) fn all(&self) -> Vec<Arc<LogState>> {
        self.wake_all();
        self.awake()
    }

    /// The same without dormant logs, which hold nothing, have no settings, and all of which is durable.
    pub(crate) fn awake(&self) -> Vec<Arc<LogState>> {
        in_order(
            self.names
                .read()
                .iter()
                .map(|found| Arc::clone(&found.0))
                .collect(),
        )
    }
}

fn snapshot_key(log: &LogState) -> Option<SnapshotKey> {
    let told = log.named_snapshot()?;
    Some((
        told.automatic,
        told.label.clone(),
        log.name.clone(),
        told.version.get(),
    ))
}

/// The order of a hash map differs from run to run, and with it what is written where.
fn in_order(mut logs: Vec<Arc<LogState>>) -> Vec<Arc<LogState>> {
    logs.sort_unstable_by_key(|log| log.id.get());
    logs
}
