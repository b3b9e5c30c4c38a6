//! What killed writers left, and what is not needed any more: finding it, removing it.
//!
//! One look at the store serves all who need it, and its order keeps it correct: marks are read
//! before names, so that a name given after a mark was seen is seen too.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sarus_oci::Digest;

use crate::disk::{Directory, list, remove_file};
use crate::layout::{METADATA, REMOVED, SQUASHFS, digest_name, is_name_file, parse_digest_name};
use crate::owner::age;
use crate::read::NAME_BYTES_MAX;
use crate::write::{discard, now};
use crate::{Listing, Name, Owner, Remembered, Store, StoreError, spread};

/// Seconds after which a name without its image is nobody's who is about to bring it back.
const NAME_SETTLES: u64 = 60;

/// Names and marks of a store at one time.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// The directories of images, and when those that are marked lost their last name. Of those
    /// that have one, [`Store::survey`] alone looks at the mark.
    pub(crate) images: Vec<(Digest, Option<SystemTime>)>,
    /// The names that can be read. What they remember is as the image is; where it was not, they
    /// remember nothing.
    pub(crate) names: Vec<Name>,
    /// Why others cannot.
    pub(crate) damaged: Vec<StoreError>,
    named: HashSet<Digest>,
    /// There is a name that a newer version wrote, or another user's: it may mean any image.
    any_may_be_named: bool,
}

impl Survey {
    /// Whether a name that was read points at the image.
    pub(crate) fn has_name(&self, digest: &Digest) -> bool {
        self.named.contains(digest)
    }

    /// Whether a name points at the image, or may do so; a damaged one points nowhere.
    pub(crate) fn is_named(&self, digest: &Digest) -> bool {
        self.any_may_be_named || self.has_name(digest)
    }

    /// Whether the image is to be deleted.
    pub(crate) fn is_over(
        &self,
        digest: &Digest,
        mark: Option<SystemTime>,
        grace: Duration,
    ) -> bool {
        mark.is_some_and(|mark| age(mark) >= grace) && !self.is_named(digest)
    }
}

impl Store {
    /// Removes what killed writers left, and images without a name whose `grace` has passed.
    /// To be called by commands that write. A store that does not exist yet stays so.
    ///
    /// # Errors
    ///
    /// The first file that cannot be read or removed; the rest is left to the next call.
    pub fn sweep(&self, grace: Duration) -> Result<(), StoreError> {
        self.sweep_temporaries()?;
        let mut survey = self.survey()?;
        self.collect(&mut survey, grace)?;
        self.forget_lost(&survey)
    }

    /// [`Store::sweep`] where the store can be written, then [`Store::list`], with one look at
    /// the names for both. That something cannot be swept is no error.
    ///
    /// # Errors
    ///
    /// A directory that cannot be read.
    pub fn sweep_and_list(&self, grace: Duration) -> Result<Listing, StoreError> {
        let mut survey = self.survey_for_list()?;
        if !self.is_read_only() {
            let swept = self
                .sweep_temporaries()
                .and_then(|()| self.collect(&mut survey, grace))
                .and_then(|()| self.forget_lost(&survey));
            if let Err(error) = swept {
                log::debug!("what killed commands left stays: {error}");
            }
        }
        Ok(self.list_surveyed(survey))
    }

    /// Removes names whose image is gone, as killed writers leave them, and short names of names that
    /// are.
    fn forget_lost(&self, survey: &Survey) -> Result<(), StoreError> {
        let images: HashSet<&Digest> = survey.images.iter().map(|(digest, _)| digest).collect();
        for name in survey.names.iter().filter(|name| !images.contains(&name.digest)) {
            self.forget_if_lost(&self.name_path(&name.reference, &name.platform))?;
        }
        self.forget_short_names()
    }

    /// Takes a name aside to look at it: one that is given anew meanwhile is not touched, and one that
    /// has an image again is put back.
    fn forget_if_lost(&self, path: &Path) -> Result<(), StoreError> {
        if !self.read_name(path)?.is_some_and(|name| self.is_lost(&name)) {
            return Ok(());
        }
        let aside = self.temporary("name")?;
        match std::fs::rename(path, &aside) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(StoreError::remove(path))?,
        }
        let is_lost = matches!(self.read_name(&aside), Ok(Some(name)) if self.is_lost(&name));
        if !is_lost && !path.exists() {
            return std::fs::rename(&aside, path).map_err(StoreError::publish(path));
        }
        log::debug!("removing the name `{}`, whose image is gone", path.display());
        remove_file(&aside)
    }

    fn is_lost(&self, name: &Name) -> bool {
        now().saturating_sub(name.pulled) > NAME_SETTLES
            && self.images_directory().is_dir()
            && matches!(self.image_directory(&name.digest).try_exists(), Ok(false))
    }

    pub(crate) fn sweep_temporaries(&self) -> Result<(), StoreError> {
        self.check_writable()?;
        let me = Owner::current();
        for path in self.left_behind(&me)? {
            log::debug!("removing what a killed process left: `{}`", path.display());
            discard(&path);
        }
        self.sweep_leases(&me)?;
        self.blobs().release_left_behind(&me)
    }

    /// Takes away what this process has not finished, for one that is about to end: temporaries and
    /// leases. Beginnings of blobs are kept for who continues them.
    pub fn abandon(&self) {
        let me = Owner::current();
        let is_mine = |label: &str| Owner::parse(label).as_ref() == Some(&me);
        let directory = self.temporaries_directory();
        for name in list(&directory).unwrap_or_default() {
            if name.split_once(',').is_some_and(|(_, label)| is_mine(label)) {
                discard(&directory.join(&name));
            }
        }
        self.abandon_leases(&is_mine);
        self.blobs().abandon(&is_mine);
    }

    /// The temporaries whose writers are gone.
    pub(crate) fn left_behind(&self, me: &Owner) -> Result<Vec<PathBuf>, StoreError> {
        let directory = self.temporaries_directory();
        let mut found = Vec::new();
        for name in list(&directory)? {
            let path = directory.join(&name);
            if is_left_behind(&path, &name, me) {
                found.push(path);
            }
        }
        Ok(found)
    }

    /// Looks at marks, then at names.
    pub(crate) fn survey(&self) -> Result<Survey, StoreError> {
        let digests = self.digests()?;
        let images = spread::map(&digests, |digest| (digest.clone(), self.marked(digest)));
        let mut survey = Survey { images, ..Survey::default() };
        self.survey_names(&mut survey)?;
        Ok(survey)
    }

    /// Looks at names, then at images and the marks of those without a name: for lists, in which
    /// each name read has its image. A name that is given in between is seen when the image has
    /// been moved aside to be deleted.
    pub(crate) fn survey_for_list(&self) -> Result<Survey, StoreError> {
        let mut survey = Survey::default();
        self.survey_names(&mut survey)?;
        let is_named = |digest: &Digest| survey.has_name(digest);
        let (named, unnamed): (Vec<_>, Vec<_>) = self.digests()?.into_iter().partition(is_named);
        let marks = spread::map(&unnamed, |digest| self.marked(digest));
        survey.images = unnamed.into_iter().zip(marks).collect();
        survey.images.extend(named.into_iter().map(|digest| (digest, None)));
        Ok(survey)
    }

    fn digests(&self) -> Result<Vec<Digest>, StoreError> {
        let images = list(&self.images_directory())?;
        Ok(images.iter().filter_map(|name| parse_digest_name(name)).collect())
    }

    fn marked(&self, digest: &Digest) -> Option<SystemTime> {
        let mark = std::fs::metadata(self.image_directory(digest).join(REMOVED));
        mark.ok().map(|mark| mark.modified().unwrap_or(UNIX_EPOCH))
    }

    fn survey_names(&self, survey: &mut Survey) -> Result<(), StoreError> {
        let path = self.names_directory();
        let Some(directory) = Directory::open(&path)? else { return Ok(()) };
        let mut files = directory.names()?;
        files.retain(|file| is_name_file(file));
        let images = self.images_directory();
        let images = Directory::open(&images).ok().flatten();
        let read = spread::map(&files, |file| -> Result<_, StoreError> {
            let mut name: Option<Name> = directory.parse(file, NAME_BYTES_MAX)?;
            if let Some(name) = &mut name {
                name.image = name.image.take().filter(|remembered| {
                    let images = images.as_ref();
                    images.is_some_and(|images| is_as_remembered(images, &name.digest, remembered))
                });
            }
            Ok(name)
        });
        for name in read {
            match name {
                Ok(name) => survey.names.extend(name),
                Err(error) => {
                    survey.any_may_be_named |= !error.is_damage();
                    survey.damaged.push(error);
                }
            }
        }
        survey.named = survey.names.iter().map(|name| name.digest.clone()).collect();
        survey.names.sort_by(|a, b| (&a.reference, &a.platform).cmp(&(&b.reference, &b.platform)));
        Ok(())
    }

    /// Marks images without a name, which the survey then has as marked; unmarks those that have one
    /// again; deletes those whose `grace` has passed.
    pub(crate) fn collect(&self, survey: &mut Survey, grace: Duration) -> Result<(), StoreError> {
        let mut images = std::mem::take(&mut survey.images);
        let collected = images.iter_mut().try_for_each(|(digest, mark)| match *mark {
            // Looked at once more, since a name may have been given after the survey.
            None if !survey.is_named(digest) && !self.has_name(digest)? => {
                self.mark(digest)?;
                *mark = Some(SystemTime::now());
                Ok(())
            }
            // Whoever gave the name was killed before the mark was gone. One that loses its name
            // just now is marked by the next command.
            Some(_) if survey.has_name(digest) => {
                remove_file(&self.image_directory(digest).join(REMOVED))
            }
            Some(_) if survey.is_over(digest, *mark, grace) => self.delete(digest).map(drop),
            _ => Ok(()),
        });
        survey.images = images;
        collected
    }
}

/// Whether the files of an image are those that were there when the name was given; where not,
/// what it says is asked of the image.
fn is_as_remembered(images: &Directory<'_>, digest: &Digest, remembered: &Remembered) -> bool {
    let image = digest_name(digest);
    let has = |file, bytes| images.length(&format!("{image}/{file}")) == Some(bytes);
    has(METADATA, remembered.metadata_bytes) && has(SQUASHFS, remembered.summary.bytes)
}

/// Whether a temporary's writer is gone. What no store wrote is left alone until it is old.
fn is_left_behind(path: &Path, name: &str, observer: &Owner) -> bool {
    let Ok(age) = newest(path).map(age) else { return false };
    match name.split_once(',').and_then(|(_, label)| Owner::parse(label)) {
        Some(owner) => owner.is_gone(observer, age),
        None => age > crate::FOREIGN_AGE_MAX,
    }
}

/// The latest modification of a file, or of what a directory holds.
fn newest(path: &Path) -> std::io::Result<SystemTime> {
    let metadata = std::fs::symlink_metadata(path)?;
    let mut newest = metadata.modified()?;
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path)? {
            newest = newest.max(entry?.metadata()?.modified()?);
        }
    }
    Ok(newest)
}
