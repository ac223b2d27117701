import HSMCore
import HSMStore
import HSMSystem

/// The source of an import, for questions about files apart from its listing. Used by one thread at a time, which may
/// block.
struct ListedRemote {
    let source: any RemoteStore
    /// The source was moved, or is a copy of the recorded one: see ``RemoteStore/agrees(_:with:isMoved:)``.
    var isMoved = false
    /// Runs the comparison, while the import's task blocks and waits.
    private let pool = BlockingPool(name: "compare", limit: 1)

    init(_ source: any RemoteStore, isMoved: Bool = false) {
        self.source = source
        self.isMoved = isMoved
    }

    /// Whether the source still has the recorded version.
    ///
    /// - Parameter isLenient: a change of the attributes alone does not count, where the source can tell.
    func agrees(_ recorded: RemoteObject, _ found: RemoteObject, _ isLenient: Bool) -> Bool {
        source.agrees(recorded, with: found, isMoved: isMoved || isLenient)
    }

    /// Compares a lower file with the object of the source.
    func compare(_ object: RemoteObject, _ lower: Descriptor) -> ContentComparison.Outcome {
        pool.wait { [source] () async -> ContentComparison.Outcome in
            var comparison = ContentComparison(lower)
            return await comparison.run(object, source)
        }
    }
}
