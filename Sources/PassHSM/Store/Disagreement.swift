import HSMCore

/// One disagreement between the records and the lower tree, as ``Verifier`` found it.
package struct Disagreement: Sendable, Equatable {
    package enum Kind: String, Sendable {
        /// The record is damaged, copied, or gone.
        case record
        /// The lower file has another size than recorded.
        case size
        /// The residency map cannot be believed.
        case map
        /// Bytes differ from those that were filled.
        case data
        /// A name or a directory could not be looked at.
        case unreadable
    }

    package enum Outcome: String, Sendable {
        /// Nothing was changed, because repairs were not requested.
        case found
        /// The wrong part is no longer believed, and will be fetched again.
        case dropped
        /// A repair would lose content that only this file holds.
        case left
    }

    /// The path below the lower directory, without NUL.
    package var path: [UInt8]
    package var kind: Kind
    /// The range of bytes in the file; nil: the whole file.
    package var range: Range<Int>?
    /// One line for people.
    package var cause: String
    package var outcome: Outcome
}

/// Counts of a ``Verifier``'s work.
package struct VerifyCounts: Sendable, Equatable {
    /// Names of every kind below the top directory.
    package var names = 0
    /// Regular files with a record.
    package var files = 0
    /// Bytes that were read and compared with a checksum.
    package var bytes = 0
    /// Complete clean files without a checksum or digest to compare their content with.
    package var unchecked = 0
    /// Complete clean files whose recorded version the remote no longer has.
    package var changed = 0
    package var findings = 0
    package var dropped = 0
    /// Residency maps and keys in `.passhsm` that no file needs.
    package var leftovers = 0

    package init() {}
}
