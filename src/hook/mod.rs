//! Control from outside: the applications that hooks belong to (wcs.md section 4).

pub mod application;
