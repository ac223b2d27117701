/// When an incomplete file is filled.
package enum FillPolicy: String, Sendable, CaseIterable {
    /// As the front end can best: FUSE fills small files (at most one fetch unit) whole at open and others by ranges at
    /// read; fanotify does as ``open``.
    case auto
    /// Whole, when it is opened.
    case open
    /// By ranges, when they are read. With fanotify a program that looks for holes finds those of missing content.
    case read
}
