/// Which fetch runs next: at most so many at once, demand before prefetch before background, in order of arrival. Pure.
struct FetchQueue<ID: Hashable & Sendable>: Sendable {
    private let limit: Int
    private var waiting: [[ID]] = [[], [], []]
    private var running: Set<ID> = []

    init(limit: Int) { self.limit = max(1, limit) }

    /// Places of the limit are kept free of prefetches and background work, so that demand never queues behind them.
    private func room(for priority: FillState.Priority) -> Bool {
        running.count < (priority == .demand ? limit : max(1, limit * 3 / 4))
    }

    mutating func add(_ id: ID, _ priority: FillState.Priority) { waiting[priority.rawValue].append(id) }

    /// Moves a waiting fetch to the end of the demand queue.
    mutating func promote(_ id: ID) {
        for level in 1..<waiting.count {
            guard let index = waiting[level].firstIndex(of: id) else { continue }
            waiting[level].remove(at: index)
            waiting[0].append(id)
        }
    }

    /// True when it was still waiting, and is gone now.
    mutating func removeWaiting(_ id: ID) -> Bool {
        for level in waiting.indices {
            guard let index = waiting[level].firstIndex(of: id) else { continue }
            waiting[level].remove(at: index)
            return true
        }
        return false
    }

    mutating func ended(_ id: ID) { running.remove(id) }

    /// The next fetch to run, counted as running from now on.
    mutating func next() -> ID? {
        for level in waiting.indices where !waiting[level].isEmpty {
            guard let priority = FillState.Priority(rawValue: level), room(for: priority) else { continue }
            let id = waiting[level].removeFirst()
            running.insert(id)
            return id
        }
        return nil
    }
}
