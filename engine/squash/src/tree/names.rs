//! The names in a directory, in little memory: images have millions of them.

use std::fmt;

use super::NodeId;

/// Most names in a chunk: moving half of them for a name in between takes less than finding its place.
const CHUNK: usize = 512;

/// Names and the nodes that they mean, sorted by bytes, as squashfs demands.
///
/// Some 12 bytes for a name besides its own. A name taken away keeps its bytes. All names together
/// may have 4 GiB, one 64 KiB: beyond, they are not kept as they are.
#[derive(Clone, Default)]
pub struct Names {
    /// The names themselves, in the order in which they came.
    bytes: Vec<u8>,
    /// None is empty; sorted, as they are among themselves.
    chunks: Vec<Vec<Slot>>,
}

#[derive(Clone, Copy)]
struct Slot {
    start: u32,
    length: u16,
    node: NodeId,
}

impl Names {
    /// The node of that name.
    pub fn get(&self, name: &[u8]) -> Option<NodeId> {
        let (chunk, place) = self.find(name).ok()?;
        Some(self.chunks[chunk][place].node)
    }

    /// Makes `name` mean a node, from now on.
    pub fn insert(&mut self, name: &[u8], node: NodeId) {
        let (mut chunk, mut place) = match self.find(name) {
            Ok((chunk, place)) => {
                self.chunks[chunk][place].node = node;
                return;
            }
            Err(place) => place,
        };
        if self.chunks.get(chunk).is_none_or(|full| full.len() == CHUNK) {
            (chunk, place) = self.make_room(chunk, place);
        }
        // Callers stay far below both limits; a name that is cut here is one that the writer refuses.
        let start = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(name);
        self.chunks[chunk].insert(place, Slot { start, length, node });
    }

    /// Takes a name away. Without effect where there is none.
    pub fn remove(&mut self, name: &[u8]) {
        let Ok((chunk, place)) = self.find(name) else { return };
        self.chunks[chunk].remove(place);
        if self.chunks[chunk].is_empty() {
            self.chunks.remove(chunk);
        }
    }

    /// Takes away all names of which `is_kept` does not hold.
    pub fn retain(&mut self, mut is_kept: impl FnMut(&[u8], NodeId) -> bool) {
        for chunk in &mut self.chunks {
            chunk.retain(|slot| is_kept(slot.name(&self.bytes), slot.node));
        }
        self.chunks.retain(|chunk| !chunk.is_empty());
    }

    /// The names and what they mean, sorted.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], NodeId)> {
        self.chunks.iter().flatten().map(|slot| (slot.name(&self.bytes), slot.node))
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The chunk and the place in it of a name, or where it belongs.
    fn find(&self, name: &[u8]) -> Result<(usize, usize), (usize, usize)> {
        let compare = |slot: &Slot| slot.name(&self.bytes).cmp(name);
        let is_before = |chunk: &Vec<Slot>| chunk.last().is_some_and(|last| compare(last).is_lt());
        let chunk = self.chunks.partition_point(is_before);
        match self.chunks.get(chunk) {
            Some(slots) => match slots.binary_search_by(compare) {
                Ok(place) => Ok((chunk, place)),
                Err(place) => Err((chunk, place)),
            },
            // After all others: in the last chunk, if there is one.
            None => Err(match self.chunks.last() {
                Some(last) => (chunk - 1, last.len()),
                None => (0, 0),
            }),
        }
    }

    /// Where a name goes for which its chunk has no room. Names that come in order leave full chunks
    /// behind.
    fn make_room(&mut self, chunk: usize, place: usize) -> (usize, usize) {
        let Some(full) = self.chunks.get_mut(chunk) else {
            self.chunks.push(Vec::new());
            return (self.chunks.len() - 1, 0);
        };
        if place == full.len() {
            self.chunks.insert(chunk + 1, Vec::new());
            return (chunk + 1, 0);
        }
        let half = full.len() / 2;
        let upper = full.split_off(half);
        self.chunks.insert(chunk + 1, upper);
        if place <= half { (chunk, place) } else { (chunk + 1, place - half) }
    }
}

impl Slot {
    fn name(self, bytes: &[u8]) -> &[u8] {
        let start = self.start as usize;
        bytes.get(start..start + usize::from(self.length)).unwrap_or_default()
    }
}

impl PartialEq for Names {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Names {}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.iter().map(|(name, node)| (name.escape_ascii().to_string(), node));
        f.debug_map().entries(shown).finish()
    }
}

impl<N: AsRef<[u8]>> FromIterator<(N, NodeId)> for Names {
    fn from_iter<I: IntoIterator<Item = (N, NodeId)>>(names: I) -> Self {
        let mut made = Self::default();
        for (name, node) in names {
            made.insert(name.as_ref(), node);
        }
        made
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Numbers that are spread, each once below 2 to the 16th.
    fn spread(number: u32) -> u32 {
        (number.wrapping_mul(40_503) ^ 0x5a5a) & 0xffff
    }

    fn check(names: &Names, want: &BTreeMap<Vec<u8>, NodeId>) {
        let found: Vec<_> = names.iter().map(|(name, node)| (name.to_vec(), node)).collect();
        let want: Vec<_> = want.iter().map(|(name, node)| (name.clone(), *node)).collect();
        assert_eq!(found, want);
        assert_eq!((names.len(), names.is_empty()), (want.len(), want.is_empty()));
        assert!(names.chunks.iter().all(|chunk| (1..=CHUNK).contains(&chunk.len())));
    }

    #[test]
    fn names_are_found_and_sorted_in_whatever_order_they_come_and_go() {
        let orders: [fn(u32) -> u32; 3] = [|number| number, |number| 4999 - number, spread];
        for order in orders {
            let (mut names, mut want) = (Names::default(), BTreeMap::new());
            let name = |number: u32| format!("{:x}", order(number)).into_bytes();
            for number in 0..5000 {
                names.insert(&name(number), NodeId(number));
                want.insert(name(number), NodeId(number));
            }
            check(&names, &want);
            for number in (0..5000).step_by(3) {
                names.insert(&name(number), NodeId(number + 1));
                want.insert(name(number), NodeId(number + 1));
                names.remove(&name(number + 1));
                want.remove(&name(number + 1));
                names.remove(b"none");
            }
            check(&names, &want);
            for number in 0..5000 {
                assert_eq!(names.get(&name(number)), want.get(&name(number)).copied());
            }
            names.retain(|name, node| name[0] > b'7' && node.0 % 5 > 0);
            want.retain(|name, node| name[0] > b'7' && node.0 % 5 > 0);
            check(&names, &want);
            names.retain(|_, _| false);
            check(&names, &BTreeMap::new());
        }
    }

    #[test]
    fn names_that_come_in_order_fill_their_chunks() {
        let names: Names =
            (0..10 * u32::try_from(CHUNK).unwrap()).map(|n| (n.to_be_bytes(), NodeId(n))).collect();
        assert_eq!(names.chunks.len(), 10);
    }
}
