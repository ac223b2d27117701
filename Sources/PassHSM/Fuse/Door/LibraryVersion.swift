import CFuse

/// The libfuse that this program runs with.
package enum LibraryVersion {
    /// `3.14.0` (fuse_pkgversion(3))
    package static var text: String { String(cString: fuse_pkgversion()) }
}
