import HSMCore

/// One disagreement between what is recorded and what is there, as ``Verifier`` found it.
package struct Disagreement: Sendable, Equatable {
    package enum Kind: String, Sendable {
        /// The record is damaged, copied, or gone.
        case record
        /// The lower file has another size than recorded.
        case size
        /// The residency map cannot be believed.
        case map
        /// Bytes are not those that were filled.
        case data
        /// A name or a directory that could not be looked at.
        case unreadable
    }

    package enum Outcome: String, Sendable {
        /// Nothing was changed, as nothing was asked to be.
        case found
        /// The wrong part is no longer believed, and will be fetched again.
        case dropped
        /// It cannot be put right without losing what only this file holds.
        case left
    }

    /// Below the lower directory, without NUL.
    package var path: [UInt8]
    package var kind: Kind
    /// Bytes of the file; nil: all of it.
    package var range: Range<Int>?
    /// One line for people.
    package var cause: String
    package var outcome: Outcome
}

/// The work of a ``Verifier``, in numbers.
package struct VerifyCounts: Sendable, Equatable {
    /// Names of every kind below the top directory.
    package var names = 0
    /// Regular files with a record.
    package var files = 0
    /// Bytes that were read and compared with a checksum.
    package var bytes = 0
    /// Complete clean files of which nothing is recorded that their content could be compared with.
    package var unchecked = 0
    /// Complete clean files of which the remote no longer has the version that is recorded.
    package var changed = 0
    package var findings = 0
    package var dropped = 0
    /// Residency maps and keys in `.passhsm` that no file needs.
    package var leftovers = 0

    package init() {}
}
