//! Where routes lead: each path once, however many routes take it.

use std::collections::HashMap;

use model::InterfaceName;
use model::program::Path;

/// A path's number while something refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PathId(u32);

/// The paths that something refers to.
#[derive(Debug, Default)]
pub(super) struct Paths {
    ids: HashMap<Path, PathId>,
    /// By number, with the count of what refers to it.
    all: Vec<Option<(Path, u32)>>,
    free: Vec<PathId>,
}

impl Paths {
    /// One more reference to a path; its number.
    pub(super) fn refer(&mut self, path: &Path) -> PathId {
        if let Some(id) = self.ids.get(path).copied() {
            self.refer_again(id);
            return id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.all.push(None);
            PathId((self.all.len() - 1) as u32)
        });
        self.all[id.0 as usize] = Some((path.clone(), 1));
        self.ids.insert(path.clone(), id);
        id
    }

    /// One more reference to a path that is there.
    pub(super) fn refer_again(&mut self, id: PathId) {
        if let Some((_, references)) = &mut self.all[id.0 as usize] {
            *references += 1;
        }
    }

    /// One reference less; a path without any is gone.
    pub(super) fn release(&mut self, id: PathId) {
        let Some((path, references)) = &mut self.all[id.0 as usize] else { return };
        *references -= 1;
        if *references == 0 {
            self.ids.remove(path);
            self.all[id.0 as usize] = None;
            self.free.push(id);
        }
    }

    /// The number of a path, if something refers to it.
    pub(super) fn find(&self, path: &Path) -> Option<PathId> {
        self.ids.get(path).copied()
    }

    pub(super) fn path(&self, id: PathId) -> Option<&Path> {
        self.all[id.0 as usize].as_ref().map(|(path, _)| path)
    }

    /// The paths that name an interface or tunnel.
    pub(super) fn naming(&self, name: InterfaceName) -> impl Iterator<Item = (PathId, &Path)> {
        let all = self.ids.iter().map(|(path, id)| (*id, path));
        all.filter(move |(_, path)| path.interfaces().any(|other| other == name))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_there_as_long_as_something_refers_to_it() {
        let mut paths = Paths::default();
        let lan: Path = Path::Attached("lan".parse().unwrap());
        let id = paths.refer(&lan);
        assert_eq!((paths.refer(&lan), paths.find(&lan), paths.len()), (id, Some(id), 1));
        let hole = paths.refer(&Path::Blackhole);
        assert_ne!(hole, id);
        assert_eq!(paths.naming("lan".parse().unwrap()).map(|(id, _)| id).collect::<Vec<_>>(), [id]);
        paths.release(id);
        assert_eq!(paths.path(id), Some(&lan));
        paths.release(id);
        assert_eq!((paths.path(id), paths.find(&lan), paths.len()), (None, None, 1));
        // Its number is used again.
        assert_eq!(paths.refer(&Path::Unreachable), id);
    }
}
