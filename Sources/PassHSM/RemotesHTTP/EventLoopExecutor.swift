import NIOCore
import NIOPosix
import Synchronization

/// Runs tasks on an event loop's thread, where they are to do nothing that blocks: a task that waits for the loop again and
/// again is not woken on another thread each time.
final class EventLoopExecutor: TaskExecutor {
    private let loop: any EventLoop

    private init(_ loop: any EventLoop) { self.loop = loop }

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        loop.execute { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }

    private static let all = MultiThreadedEventLoopGroup.singleton.makeIterator().map { EventLoopExecutor($0) }
    private static let turn = Atomic(0)

    /// One of the process's event loops, each in its turn.
    static var next: EventLoopExecutor {
        all[turn.wrappingAdd(1, ordering: .relaxed).oldValue % all.count]
    }
}
