import HSMSystem

/// Counts of an import's work so far.
package struct ImportCounts: Hashable, Sendable {
    /// Files, symlinks, special files and further names of files that the lower directory did not have.
    package var new = 0
    /// Names that equal the source's.
    package var unchanged = 0
    /// Names of an older version, which were replaced.
    package var changed = 0
    /// Names that the source no longer has.
    package var gone = 0
    /// Names of the source and of an earlier import that were removed or renamed locally; they stay so.
    package var removed = 0
    /// Names with local changes, or local names, that differ from the source; they stay as they are.
    package var conflicts = 0
    /// Names that the source could not read.
    package var unreadable = 0
    /// Things that the lower directory cannot hold: devices without privilege, attributes and sizes beyond its limits.
    package var skipped = 0
    /// Regular files of the source, each counted once.
    package var files = 0
    /// Directories of the source, without the top.
    package var directories = 0
    /// Symlinks, and the second and further names of files.
    package var links = 0
    /// The sizes of the source's files together.
    package var bytes = 0

    package init() {}
}

/// The progress of an import.
package struct ImportProgress: Sendable {
    package var counts: ImportCounts
    /// Names of the source, of every kind, that were looked at; without the top.
    package var entries: Int
}

/// One name that an import could not handle as it should.
package struct ImportProblem: Hashable, Sendable, CustomStringConvertible {
    package enum Kind: String, Sendable { case conflict, unreadable, skipped }

    package let kind: Kind
    /// The path below the top directory.
    package let path: [UInt8]
    package let cause: String

    package var description: String { "\(kind.rawValue): \(BytePath(path)): \(cause)" }
}

/// The result of an import.
package struct ImportSummary: Sendable {
    /// The largest count of problems that are kept; ``counts`` has all of them.
    package static let keptProblems = 1000

    package var counts = ImportCounts()
    /// The first problems, in the order in which they occurred.
    package var problems: [ImportProblem] = []

    /// The reason why no gone name was removed, although this was requested; nil: they were.
    package var refusal: String?

    /// Whether the tree has everything that the source has.
    package var isClean: Bool { counts.conflicts == 0 && counts.unreadable == 0 }

    mutating func note(_ kind: ImportProblem.Kind, _ path: [UInt8], _ cause: String) {
        switch kind {
        case .conflict: counts.conflicts += 1
        case .unreadable: counts.unreadable += 1
        case .skipped: counts.skipped += 1
        }
        if problems.count < Self.keptProblems { problems.append(ImportProblem(kind: kind, path: path, cause: cause)) }
    }
}

/// The reason why an import did not begin, or broke off: one line for the user.
package struct ImportError: Error, Hashable, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
}
