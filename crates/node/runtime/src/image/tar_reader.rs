//! The entries of a layer's tar, read front to back with a bounded memory.
//!
//! What always holds: whatever the stream says, names and extended headers take no more memory than the
//! limits below, and an entry's data is exactly as long as its extended header says, or its header where
//! that says nothing. What it leaves to others: what an entry may do.

use std::io::{self, Read};

use tar::{EntryType, Header};

const BLOCK: u64 = 512;
/// PAX headers hold names and extended attributes; the kernel's limit of an attribute is 64 KiB.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// PATH_MAX of Linux.
pub(crate) const PATH_BYTES_MAX: usize = 4096;

/// An entry's header, with its extensions applied.
#[derive(Debug)]
pub(crate) struct Entry {
    pub kind: EntryType,
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime_s: i64,
    pub mtime_ns: u32,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

pub(crate) struct TarReader<R> {
    stream: R,
    /// What is left of the current entry, and then its padding.
    data_left: u64,
    padding: u64,
}

#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

fn bad(problem: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.into())
}

impl<R: Read> TarReader<R> {
    pub fn new(stream: R) -> Self {
        Self {
            stream,
            data_left: 0,
            padding: 0,
        }
    }

    pub fn into_inner(self) -> R {
        self.stream
    }

    /// The next entry; what was not read of the last one's data is skipped.
    pub fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.next_header()? else {
                return Ok(None);
            };
            let size = header.entry_size()?;
            match header.entry_type() {
                EntryType::XHeader => {
                    let records = self.read_extension(size)?;
                    extensions.apply_pax(&records)?;
                }
                // Global headers are comments in practice (git's commit ids).
                EntryType::XGlobalHeader => {
                    self.read_extension(size)?;
                }
                EntryType::GNULongName => extensions.path = Some(self.read_long_name(size)?),
                EntryType::GNULongLink => extensions.link = Some(self.read_long_name(size)?),
                EntryType::GNUSparse => {
                    return Err(bad("sparse files in layers are not supported"));
                }
                kind => {
                    let size = extensions.size.unwrap_or(size);
                    // Only files have data; a size with anything else means nothing, as in other readers.
                    let has_data = matches!(kind, EntryType::Regular | EntryType::Continuous)
                        || !(kind.is_dir()
                            || kind.is_symlink()
                            || kind.is_hard_link()
                            || kind.is_fifo()
                            || kind.is_character_special()
                            || kind.is_block_special());
                    let size = if has_data { size } else { 0 };
                    self.begin(size);
                    return extensions.entry(&header, kind).map(Some);
                }
            }
        }
    }

    /// Reads on in the current entry's data.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer
            .len()
            .min(self.data_left.try_into().unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let got = self.stream.read(&mut buffer[..want])?;
        if got == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the layer ends within a file",
            ));
        }
        self.data_left -= got as u64;
        Ok(got)
    }

    fn begin(&mut self, size: u64) {
        self.data_left = size;
        self.padding = (BLOCK - size % BLOCK) % BLOCK;
    }

    fn next_header(&mut self) -> io::Result<Option<Header>> {
        let mut sink = [0; 8192];
        while self.read_data(&mut sink)? > 0 {}
        let padding = usize::try_from(self.padding).unwrap_or(0);
        self.padding = 0;
        self.stream.read_exact(&mut sink[..padding])?;
        let mut header = Header::new_old();
        if !read_block(&mut self.stream, header.as_mut_bytes())? {
            // Some writers leave the closing blocks out.
            return Ok(None);
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum: u32 = header
            .as_bytes()
            .iter()
            .enumerate()
            .map(|(at, byte)| {
                if (148..156).contains(&at) {
                    32
                } else {
                    u32::from(*byte)
                }
            })
            .sum();
        if header.cksum()? != sum {
            return Err(bad(
                "a header's checksum is wrong; this is not a tar archive",
            ));
        }
        Ok(Some(header))
    }

    fn read_extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > EXTENSION_BYTES_MAX {
            return Err(bad(format!("an extended header has {size} bytes")));
        }
        self.begin(size);
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            match self.read_data(&mut chunk)? {
                0 => return Ok(bytes),
                got => bytes.extend_from_slice(&chunk[..got]),
            }
        }
    }

    fn read_long_name(&mut self, size: u64) -> io::Result<Vec<u8>> {
        let mut name = self.read_extension(size)?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }
}

impl Extensions {
    fn apply_pax(&mut self, mut records: &[u8]) -> io::Result<()> {
        let malformed = || bad("an extended header is malformed");
        while !records.is_empty() {
            // "LENGTH KEY=VALUE\n", where the length counts all of it.
            let space = records
                .iter()
                .position(|b| *b == b' ')
                .ok_or_else(malformed)?;
            let length: usize = number(&records[..space]).ok_or_else(malformed)?;
            if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
                return Err(malformed());
            }
            let record = &records[space + 1..length - 1];
            let equals = record
                .iter()
                .position(|b| *b == b'=')
                .ok_or_else(malformed)?;
            self.apply(&record[..equals], &record[equals + 1..])
                .ok_or_else(malformed)??;
            records = &records[length..];
        }
        Ok(())
    }

    /// `None`: the value is malformed.
    fn apply(&mut self, key: &[u8], value: &[u8]) -> Option<io::Result<()>> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number(value)?),
            b"uid" => self.uid = Some(number(value)?),
            b"gid" => self.gid = Some(number(value)?),
            b"mtime" => self.mtime = Some(pax_time(value)?),
            _ if key.starts_with(b"GNU.sparse.") => {
                return Some(Err(bad("sparse files in layers are not supported")));
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Some(Ok(()))
    }

    fn entry(self, header: &Header, kind: EntryType) -> io::Result<Entry> {
        let path = self
            .path
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = self
            .link
            .or_else(|| header.link_name_bytes().map(|link| link.into_owned()))
            .unwrap_or_default();
        if path.len() >= PATH_BYTES_MAX || link.len() >= PATH_BYTES_MAX {
            return Err(bad("a path is longer than 4095 bytes"));
        }
        if path.contains(&0) || link.contains(&0) {
            return Err(bad("a path has a zero byte"));
        }
        let id = |number: io::Result<u64>| number.map(|id| u32::try_from(id).unwrap_or(0));
        let (mtime_s, mtime_ns) = match self.mtime {
            Some(mtime) => mtime,
            None => (i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0), 0),
        };
        // Version 7 archives say "directory" by a slash.
        let kind = if kind.is_file() && path.ends_with(b"/") {
            EntryType::Directory
        } else {
            kind
        };
        Ok(Entry {
            kind,
            path,
            link,
            mode: header.mode()? & 0o7777,
            uid: self.uid.map_or_else(|| id(header.uid()), Ok)?,
            gid: self.gid.map_or_else(|| id(header.gid()), Ok)?,
            mtime_s,
            mtime_ns,
            xattrs: self.xattrs,
        })
    }
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `[-]SECONDS[.FRACTION]`.
fn pax_time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: u32 = format!("{:0<9.9}", fraction).parse().ok()?;
    match (whole.starts_with('-'), nanoseconds) {
        // Before the epoch the fraction counts backwards.
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
        _ => Some((seconds, nanoseconds)),
    }
}

/// `false` at the end of the stream; an error within a block.
fn read_block<R: Read>(stream: &mut R, block: &mut [u8; 512]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < block.len() {
        match stream.read(&mut block[filled..])? {
            0 if filled == 0 => return Ok(false),
            0 => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the layer ends within a header",
                ));
            }
            got => filled += got,
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_pax_have_fractions_on_both_sides_of_the_epoch() {
        assert_eq!(pax_time(b"12"), Some((12, 0)));
        assert_eq!(pax_time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(pax_time(b"12.1234567891"), Some((12, 123_456_789)));
        assert_eq!(pax_time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(pax_time(b"x"), None);
    }

    #[test]
    fn a_record_that_lies_about_its_length_is_refused() {
        for bad in [
            &b"99 path=x\n"[..],
            b"3 p",
            b"0 path=x\n",
            b"10 path=xx",
            b"11 pathxxx\n",
            b"x",
        ] {
            assert!(
                Extensions::default().apply_pax(bad).is_err(),
                "{bad:?} was taken"
            );
        }
        let mut extensions = Extensions::default();
        extensions.apply_pax(b"10 path=x\n11 size=12\n").unwrap();
        assert_eq!(extensions.path.as_deref(), Some(&b"x"[..]));
        assert_eq!(extensions.size, Some(12));
    }
}
