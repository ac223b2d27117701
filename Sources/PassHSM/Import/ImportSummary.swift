import HSMSystem

/// The work of an import so far, in numbers.
package struct ImportCounts: Hashable, Sendable {
    /// Files, symlinks, special files and further names of files that the lower directory did not have.
    package var new = 0
    /// Those that it had as the source has them.
    package var unchanged = 0
    /// Those that it had in an older version, which were replaced.
    package var changed = 0
    /// Those that it has and the source no longer has.
    package var gone = 0
    /// Those that the source and an import before had, and that were removed or renamed locally; left so.
    package var removed = 0
    /// Names that hold local changes, or something local, and differ from the source; left as they are.
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

/// How far an import has got.
package struct ImportProgress: Sendable {
    package var counts: ImportCounts
    /// Names of the source that were looked at, of every kind; the top is not counted.
    package var entries: Int
}

/// One name that an import could not treat as it should.
package struct ImportProblem: Hashable, Sendable, CustomStringConvertible {
    package enum Kind: String, Sendable { case conflict, unreadable, skipped }

    package let kind: Kind
    /// Below the top directory.
    package let path: [UInt8]
    package let cause: String

    package var description: String { "\(kind.rawValue): \(BytePath(path)): \(cause)" }
}

/// The result of an import.
package struct ImportSummary: Sendable {
    /// So many problems are kept; the counts tell of all.
    package static let keptProblems = 1000

    package var counts = ImportCounts()
    /// The first ones, in the order in which they were met.
    package var problems: [ImportProblem] = []

    /// Why nothing of what is gone was removed, although that was asked for; nil: it was.
    package var refusal: String?

    /// Everything that the source has is there now.
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

/// Why an import did not begin, or broke off: one line for the user.
package struct ImportError: Error, Hashable, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
}
