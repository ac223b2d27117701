import HSMCore
import HSMSystem
import Synchronization

/// The memory that an import of index pages may use. Every method may be called on any thread.
final class ListingBudget: Sendable {
    /// The largest page in bytes: half a million names.
    static let maxPage = 64 << 20
    /// Every request may read a page up to this size at once; larger pages take turns (``largePages``).
    static let smallPage = 1 << 20
    /// Most bytes of the names of all pages that are open or waited for.
    static let maxNames = 1 << 30

    /// Limits how many large pages are read at once.
    let largePages = TurnLimit(2)
    private let held = Atomic(0)

    /// Counts a page's names until ``drop(_:)``.
    ///
    /// - Throws: `.remoteFailed` when there are too many.
    func hold(_ page: HTTPIndexPage, of url: String) throws(FillError) {
        let cost = page.cost
        guard held.add(cost, ordering: .relaxed).newValue > Self.maxNames else { return }
        held.subtract(cost, ordering: .relaxed)
        throw FillError.remoteFailed(
            "\(url): the server's pages list more names at once than an import may keep in memory; "
                + "a manifest can list the files instead (--manifest)")
    }

    func drop(_ page: HTTPIndexPage) { held.subtract(page.cost, ordering: .relaxed) }
}
