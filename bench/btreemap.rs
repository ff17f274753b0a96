//! A stand-in for the ordered state stores that programs in Rust keep for
//! themselves: a `BTreeMap` from the key to the place of its value in an arena
//! that is appended to. One thread, no checks, nothing shared and nothing kept.
//!
//! Pointers handed out hold until the next change.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Bound::{Included, Unbounded};
use std::os::raw::c_char;

#[derive(Clone)]
pub struct Store {
    map: BTreeMap<Vec<u8>, (usize, u32)>,
    arena: Vec<u8>,
}

impl Store {
    fn append(&mut self, value: &[u8]) -> (usize, u32) {
        let at = (self.arena.len(), value.len() as u32);
        self.arena.extend_from_slice(value);
        at
    }

    fn value(&self, at: (usize, u32)) -> &[u8] {
        &self.arena[at.0..at.0 + at.1 as usize]
    }

    /// The entries anew, in the order of their keys, with keys and nodes side
    /// by side as far as the allocator does that.
    fn in_order(&self) -> Store {
        let mut new = Store { map: BTreeMap::new(), arena: Vec::with_capacity(self.arena.capacity()) };
        let entries: Vec<_> =
            self.map.iter().map(|(k, &at)| (k.clone(), new.append(self.value(at)))).collect();
        new.map = entries.into_iter().collect();
        new
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (key, &at) in &self.map {
            let value = self.value(at);
            out.extend_from_slice(&(key.len() as u32).to_le_bytes());
            out.extend_from_slice(key);
            out.extend_from_slice(&(value.len() as u32).to_le_bytes());
            out.extend_from_slice(value);
        }
        out
    }

    fn from_bytes(mut bytes: &[u8], arena: usize) -> Option<Store> {
        fn piece<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
            let len = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
            let piece = bytes.get(4..4 + len)?;
            *bytes = &bytes[4 + len..];
            Some(piece)
        }
        let mut new = Store { map: BTreeMap::new(), arena: Vec::with_capacity(arena) };
        while !bytes.is_empty() {
            let key = piece(&mut bytes)?;
            let value = piece(&mut bytes)?;
            let at = new.append(value);
            new.map.insert(key.to_vec(), at);
        }
        Some(new)
    }
}

unsafe fn bytes<'a>(data: *const u8, len: usize) -> &'a [u8] {
    if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(data, len) } }
}

unsafe fn text<'a>(path: *const c_char) -> &'a str {
    unsafe { std::ffi::CStr::from_ptr(path) }.to_str().unwrap_or("")
}

#[no_mangle]
pub extern "C" fn btreemap_new(arena: usize) -> *mut Store {
    Box::into_raw(Box::new(Store { map: BTreeMap::new(), arena: Vec::with_capacity(arena) }))
}

#[no_mangle]
pub unsafe extern "C" fn btreemap_free(s: *mut Store) {
    drop(unsafe { Box::from_raw(s) });
}

#[no_mangle]
pub unsafe extern "C" fn btreemap_len(s: &Store) -> usize {
    s.map.len()
}

#[no_mangle]
pub unsafe extern "C" fn btreemap_put(s: &mut Store, key: *const u8, key_len: usize, value: *const u8, len: usize) {
    let at = s.append(unsafe { bytes(value, len) });
    s.map.insert(unsafe { bytes(key, key_len) }.to_vec(), at);
}

/// The value, or NULL.
#[no_mangle]
pub unsafe extern "C" fn btreemap_get(s: &Store, key: *const u8, key_len: usize, len: &mut usize) -> *const u8 {
    match s.map.get(unsafe { bytes(key, key_len) }) {
        Some(&at) => {
            let value = s.value(at);
            *len = value.len();
            value.as_ptr()
        }
        None => std::ptr::null(),
    }
}

#[no_mangle]
pub unsafe extern "C" fn btreemap_remove(s: &mut Store, key: *const u8, key_len: usize) -> bool {
    s.map.remove(unsafe { bytes(key, key_len) }).is_some()
}

/// What `bench_touch` of bench.h does.
fn touch(digest: u64, key: &[u8], value: &[u8]) -> u64 {
    let half = u64::from_le_bytes(key[8..16].try_into().unwrap());
    digest.rotate_left(5) ^ half.wrapping_add(value[0] as u64)
}

#[no_mangle]
pub unsafe extern "C" fn btreemap_scan(s: &Store, prefix: *const u8, len: usize, digest: &mut u64) -> usize {
    let prefix = unsafe { bytes(prefix, len) };
    let mut sum = *digest;
    let mut entries = 0;
    if len == 0 {
        for (key, &at) in &s.map {
            sum = touch(sum, key, s.value(at));
            entries += 1;
        }
    } else {
        for (key, &at) in s.map.range::<[u8], _>((Included(prefix), Unbounded)) {
            if !key.starts_with(prefix) {
                break;
            }
            sum = touch(sum, key, s.value(at));
            entries += 1;
        }
    }
    *digest = sum;
    entries
}

#[no_mangle]
pub unsafe extern "C" fn btreemap_compact(s: &mut Store) {
    *s = s.in_order();
}

#[no_mangle]
pub unsafe extern "C" fn btreemap_snapshot(s: &Store) -> *mut Store {
    Box::into_raw(Box::new(s.clone()))
}

#[no_mangle]
pub unsafe extern "C" fn btreemap_revert(s: &mut Store, snapshot: &Store) {
    s.clone_from(snapshot);
}

#[no_mangle]
pub unsafe extern "C" fn btreemap_save(s: &Store, path: *const c_char) -> bool {
    fs::write(unsafe { text(path) }, s.to_bytes()).is_ok()
}

#[no_mangle]
pub unsafe extern "C" fn btreemap_restore(s: &mut Store, path: *const c_char) -> bool {
    let read = fs::read(unsafe { text(path) }).ok();
    match read.and_then(|bytes| Store::from_bytes(&bytes, s.arena.capacity())) {
        Some(new) => {
            *s = new;
            true
        }
        None => false,
    }
}
