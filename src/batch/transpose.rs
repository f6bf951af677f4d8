//! Rows to byte planes: the bytes at one offset of every row, back to back.
//!
//! Sixteen rows by sixteen bytes at a time.

/// Rows and columns of a tile.
const TILE: usize = 16;

/// Tells which bytes of the rows vary: `mask[j]` has the bits in which byte j of any row differs from the first.
pub(super) fn varying(rows: &[u8], stride: usize, mask: &mut Vec<u8>) {
    mask.clear();
    mask.resize(stride, 0);
    let Some(first) = rows.get(..stride) else { return };
    for row in rows.chunks_exact(stride) {
        for ((mask, byte), first) in mask.iter_mut().zip(row).zip(first) {
            *mask |= byte ^ first;
        }
    }
}

/// Where the planes of wanted bytes lie.
#[derive(Debug, Default)]
pub(super) struct Planes {
    /// For each byte of the row the place of its plane, if it is wanted.
    places: Vec<Option<usize>>,
    bytes: Vec<u8>,
    records: usize,
}

impl Planes {
    /// Makes the planes of the bytes for which `mask` is not 0.
    pub(super) fn make(&mut self, rows: &[u8], stride: usize, mask: &[u8]) {
        let records = rows.len() / stride.max(1);
        self.records = records;
        let mut wanted = 0;
        self.places.clear();
        self.places.extend(mask.iter().map(|bits| {
            (*bits != 0).then(|| {
                wanted += 1;
                (wanted - 1) * records
            })
        }));
        // Every byte is written below: what is there from the last group may stay until then.
        self.bytes.resize(wanted * records, 0);
        let mut from = 0;
        while let Some(next) = self.next_wanted(from) {
            // The last tile overlaps the one before rather than reach past the row.
            let start = if stride >= TILE { next.min(stride - TILE) } else { next };
            let done = if stride >= TILE { records - records % TILE } else { 0 };
            for first in (0..done).step_by(TILE) {
                self.tile(rows, stride, start, first);
            }
            self.bytewise(rows, stride, start, done);
            from = start + TILE;
        }
    }

    fn next_wanted(&self, from: usize) -> Option<usize> {
        let rest = self.places.get(from..)?;
        rest.iter().position(Option::is_some).map(|skip| from + skip)
    }

    /// Sixteen rows from `first` on, sixteen bytes from `start` on.
    fn tile(&mut self, rows: &[u8], stride: usize, start: usize, first: usize) {
        let mut tile = [[0u8; TILE]; TILE];
        let rows = rows.get(first * stride + start..).unwrap_or(&[]);
        for (to, row) in tile.iter_mut().zip(rows.chunks(stride)) {
            if let Some(bytes) = row.first_chunk() {
                *to = *bytes;
            }
        }
        let columns = transposed(&tile);
        for (place, column) in self.places.iter().skip(start).zip(&columns) {
            let to = place.and_then(|place| self.bytes.get_mut(place + first..place + first + TILE));
            if let Some(to) = to {
                to.copy_from_slice(column);
            }
        }
    }

    /// The rows from `first` on, byte by byte.
    fn bytewise(&mut self, rows: &[u8], stride: usize, start: usize, first: usize) {
        for (byte, place) in self.places.iter().enumerate().skip(start).take(TILE) {
            let Some(place) = *place else { continue };
            let from = rows.get(first * stride + byte..).unwrap_or(&[]);
            let to = self.bytes.get_mut(place + first..place + self.records).unwrap_or(&mut []);
            for (to, from) in to.iter_mut().zip(from.iter().step_by(stride)) {
                *to = *from;
            }
        }
    }

    /// The plane of a byte of the row; `None` if it was not wanted.
    pub(super) fn plane(&self, byte: usize) -> Option<&[u8]> {
        let place = (*self.places.get(byte)?)?;
        self.bytes.get(place..place + self.records)
    }
}

/// Interleaving rows i and i + 8 four times over sends byte j of row i to byte i of row j. Written so that the
/// compiler sees the shuffles that vector units have.
fn transposed(tile: &[[u8; TILE]; TILE]) -> [[u8; TILE]; TILE] {
    let mut rows = *tile;
    for _ in 0..TILE.ilog2() {
        let mut next = rows;
        let (first, second) = rows.split_at(TILE / 2);
        for (pair, (a, b)) in next.chunks_exact_mut(2).zip(first.iter().zip(second)) {
            if let [low, high] = pair {
                (*low, *high) = interleaved(a, b);
            }
        }
        rows = next;
    }
    rows
}

#[expect(clippy::indexing_slicing, reason = "i is below half the arrays' length")]
fn interleaved(a: &[u8; TILE], b: &[u8; TILE]) -> ([u8; TILE], [u8; TILE]) {
    const HALF: usize = TILE / 2;
    let mut low = [0; TILE];
    let mut high = [0; TILE];
    for i in 0..HALF {
        low[2 * i] = a[i];
        low[2 * i + 1] = b[i];
        high[2 * i] = a[HALF + i];
        high[2 * i + 1] = b[HALF + i];
    }
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stride_and_count_gives_the_bytes_of_each_offset() {
        for stride in 1..60 {
            for records in [1, 2, 15, 16, 17, 33, 64] {
                let rows: Vec<u8> = (0..stride * records).map(|i| (i * 31 + i / 7) as u8).collect();
                let mask: Vec<u8> = (0..stride).map(|j| u8::from(j % 3 != 1)).collect();
                let mut planes = Planes::default();
                planes.make(&rows, stride, &mask);
                for (byte, bits) in mask.iter().enumerate() {
                    let plane: Vec<u8> = rows.iter().skip(byte).step_by(stride).copied().collect();
                    assert_eq!(planes.plane(byte), (*bits != 0).then_some(&plane[..]), "{stride} {records}");
                }
            }
        }
    }

    #[test]
    fn the_mask_has_what_differs_from_the_first_row() {
        let mut mask = Vec::new();
        varying(&[1, 2, 3, 1, 6, 3, 0, 2, 3], 3, &mut mask);
        assert_eq!(mask, [1, 4, 0]);
    }
}
