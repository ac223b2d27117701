/// When an incomplete file is filled.
package enum FillPolicy: String, Sendable, CaseIterable {
    /// The front end chooses. FUSE fills small files (at most one fetch unit) whole at open, and others by ranges at
    /// read. fanotify does as ``open``.
    case auto
    /// Whole, when the file is opened.
    case open
    /// By ranges, when they are read. With fanotify, a program that looks for holes sees missing content as holes.
    case read
}
