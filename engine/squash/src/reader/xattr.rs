//! Extended attributes of an inode.

use super::bytes::Fields;
use super::error::ReadError;
use super::image::ImageReader;
use super::inode::Inode;
use super::metadata::{Cursor, damaged};
use crate::format::{NO_TABLE, NO_XATTR, XATTR_ELSEWHERE, XATTR_PREFIXES, XATTR_VALUE_MAX};

/// Most bytes of names and values that one inode may have.
const SET_MAX: usize = 16 << 20;

/// Full name and value.
pub type Attribute = (Vec<u8>, Vec<u8>);

impl ImageReader<'_> {
    /// The extended attributes of an inode, in the order of the image.
    ///
    /// # Errors
    ///
    /// The image cannot be read, or is damaged; more than 16 MiB.
    pub fn xattrs(&mut self, inode: &Inode) -> Result<Vec<Attribute>, ReadError> {
        let table = self.image.superblock().xattr_table;
        if inode.xattr == NO_XATTR || table == NO_TABLE {
            return Ok(Vec::new());
        }
        let mut header = [0; 16];
        self.image.read_exact_at(&mut header, table).map_err(|source| ReadError::Io {
            what: "the attribute table",
            position: table,
            source,
        })?;
        let mut fields = Fields::new(&header, table);
        let (start, sets) = (fields.u64()?, u64::from(fields.u32()?));
        let wanted = u64::from(inode.xattr);
        let set = self.table_entry::<16>(table + 16, (sets, wanted))?;
        let mut fields = Fields::new(&set, table);
        let (reference, count) = (fields.u64()?, fields.u32()?);
        let mut cursor = Cursor::new(start, table, reference);
        let mut attributes = Vec::new();
        let mut bytes = 0;
        for _ in 0..count {
            let (name, value) = self.attribute(&mut cursor, start)?;
            bytes += name.len() + value.len();
            if bytes > SET_MAX {
                return Err(damaged("an inode with more than 16 MiB of attributes", table));
            }
            attributes.push((name, value));
        }
        Ok(attributes)
    }

    fn attribute(&mut self, cursor: &mut Cursor, start: u64) -> Result<Attribute, ReadError> {
        let position = cursor.position();
        let head = self.metadata.read_array::<4>(cursor)?;
        let mut fields = Fields::new(&head, position);
        let (kind, length) = (fields.u16()?, usize::from(fields.u16()?));
        let prefix = XATTR_PREFIXES
            .get(usize::from(kind & !XATTR_ELSEWHERE))
            .ok_or_else(|| damaged("an attribute of an unknown type", position))?;
        let mut name = prefix.to_vec();
        name.resize(prefix.len() + length, 0);
        self.metadata.read(cursor, &mut name[prefix.len()..])?;
        if name.contains(&0) {
            return Err(damaged("an attribute's name with a zero byte", position));
        }
        let size = u32::from_le_bytes(self.metadata.read_array(cursor)?);
        if kind & XATTR_ELSEWHERE == 0 {
            return Ok((name, self.value(cursor, size)?));
        }
        if size != 8 {
            return Err(damaged("an attribute with a reference of a wrong size", position));
        }
        let reference = u64::from_le_bytes(self.metadata.read_array(cursor)?);
        let mut elsewhere = Cursor::new(start, self.image.superblock().xattr_table, reference);
        let size = u32::from_le_bytes(self.metadata.read_array(&mut elsewhere)?);
        Ok((name, self.value(&mut elsewhere, size)?))
    }

    fn value(&mut self, cursor: &mut Cursor, size: u32) -> Result<Vec<u8>, ReadError> {
        let size = size as usize;
        if size > XATTR_VALUE_MAX {
            return Err(damaged("an attribute of more than 64 KiB", cursor.position()));
        }
        let mut value = vec![0; size];
        self.metadata.read(cursor, &mut value)?;
        Ok(value)
    }
}
