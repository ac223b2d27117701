import CLinux
import Glibc

/// Threads for work that may block in a system call. It is a task executor, so that a fill runs on one thread from the
/// remote's bytes to the reader's answer, and never on Swift's cooperative pool.
///
/// At most `limit` threads are started, and they stay. Beyond that, and while the system refuses more threads (EAGAIN),
/// work queues in order. One thread at a time is woken or started; it wakes the next when it finds more work than its
/// own. With much short work, few threads are therefore woken, and those that are awake do most of it. When all threads
/// have been idle for a while after work, one of them calls `afterWork` once.
package final class BlockingPool: TaskExecutor, Sendable {
    private enum Work {
        case job(UnownedJob)
        case closure(@Sendable () -> Void)
    }

    private struct State {
        var queue: [Work] = []
        var head = 0
        var idle = 0
        var threads = 0
        /// Whether a thread was woken or started and has not looked for work yet.
        var isCalling = false
        /// Whether work was done since the last call of `afterWork`, and no thread waits for the time of the next call.
        var owesAfterWork = false

        enum Call { case none, wake, start }

        /// Decides whether a thread has to be woken or started for the queued work. The caller does it after it has
        /// unlocked.
        mutating func call(limit: Int) -> Call {
            guard head < queue.count, !isCalling, idle > 0 || threads < limit else { return .none }
            isCalling = true
            if idle > 0 { return .wake }
            threads += 1
            return .start
        }

        mutating func next() -> Work? {
            guard head < queue.count else { return nil }
            let work = queue[head]
            head += 1
            if head == queue.count {
                queue.removeAll(keepingCapacity: true)
                head = 0
            } else if head > 1024, head * 2 > queue.count {
                queue.removeFirst(head)
                head = 0
            }
            return work
        }
    }

    private let name: String
    private let limit: Int
    private let afterWork: (seconds: Double, call: @Sendable () -> Void)?
    private let condition = Condition()
    /// Guarded by `condition`'s lock, a leaf lock: nothing is called while it is held.
    private nonisolated(unsafe) var state = State()

    /// - Parameters:
    ///   - limit: the largest number of threads.
    ///   - afterWork: called on a thread of the pool each time the pool has been without work for so many seconds, once
    ///     after work.
    package init(name: String, limit: Int, afterWork: (seconds: Double, call: @Sendable () -> Void)? = nil) {
        self.name = name
        self.limit = limit
        self.afterWork = afterWork
    }

    /// Starts the first thread, if there is none, so that later work always finds one. To be called before there is
    /// work.
    ///
    /// - Throws: EAGAIN when the system gives no thread.
    package func prepare() throws(Errno) {
        condition.lock()
        let isFirst = state.threads == 0
        if isFirst { (state.threads, state.isCalling) = (1, true) }
        condition.unlock()
        guard isFirst else { return }
        do throws(Errno) { try startThread(name: name) { [self] in loop() } } catch {
            condition.lock()
            (state.threads, state.isCalling) = (0, false)
            condition.unlock()
            throw error
        }
    }

    package func enqueue(_ job: consuming ExecutorJob) { add(.job(UnownedJob(job))) }

    /// Runs `body` on a thread of the pool.
    package func run(_ body: @escaping @Sendable () -> Void) { add(.closure(body)) }

    private func add(_ work: Work) {
        condition.lock()
        state.queue.append(work)
        let call = state.call(limit: limit)
        condition.unlock()
        make(call)
    }

    private func make(_ call: State.Call) {
        switch call {
        case .none: break
        case .wake: condition.signal()
        case .start: start()
        }
    }

    /// Starts a thread. When the system gives none, the work is left to the existing threads. When there are none at
    /// all, the caller waits until the system gives one.
    private func start() {
        while true {
            do throws(Errno) { return try startThread(name: name) { [self] in loop() } } catch {
                guard noThread() else { return }
                usleep(10_000)
            }
        }
    }

    /// Uncounts a thread that could not be started. True when work waits and no other thread exists: the thread stays
    /// counted, and the caller tries again.
    private func noThread() -> Bool {
        condition.lock()
        defer { condition.unlock() }
        let isNeeded = state.threads == 1 && state.head < state.queue.count
        if !isNeeded {
            state.threads -= 1
            state.isCalling = false
        }
        return isNeeded
    }

    private func loop() {
        condition.lock()
        state.isCalling = false
        while true {
            guard let work = state.next() else {
                waitLocked()
                continue
            }
            state.owesAfterWork = true
            let call = state.call(limit: limit)
            condition.unlock()
            make(call)
            switch work {
            case .job(let job): job.runSynchronously(on: asUnownedTaskExecutor())
            case .closure(let body): body()
            }
            condition.lock()
        }
    }

    /// Waits until the thread is woken. The last thread to become idle after work waits for `afterWork`'s time first.
    private func waitLocked() {
        state.idle += 1
        // This is reset after a time-out too: a wake-up may have come between the end of the wait and now.
        defer { (state.idle, state.isCalling) = (state.idle - 1, false) }
        guard let afterWork, state.owesAfterWork, state.idle == state.threads else { return condition.wait() }
        state.owesAfterWork = false
        let isWoken = condition.wait(seconds: afterWork.seconds)
        guard !isWoken, state.head == state.queue.count, state.idle == state.threads else {
            state.owesAfterWork = true
            return
        }
        condition.unlock()
        afterWork.call()
        condition.lock()
    }
}

/// A POSIX mutex with a condition variable, whose timed waits use the monotonic clock. Both keep their address for as
/// long as the object lives.
package final class Condition: @unchecked Sendable {
    // Sendable: POSIX allows both objects to be used by every thread.
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let variable = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

    package init() {
        pthread_mutex_init(mutex, nil)
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(variable, &attributes)
        pthread_condattr_destroy(&attributes)
    }

    deinit {
        pthread_cond_destroy(variable)
        pthread_mutex_destroy(mutex)
        variable.deallocate()
        mutex.deallocate()
    }

    package func lock() { pthread_mutex_lock(mutex) }
    package func unlock() { pthread_mutex_unlock(mutex) }
    package func wait() { pthread_cond_wait(variable, mutex) }
    package func signal() { pthread_cond_signal(variable) }
    package func broadcast() { pthread_cond_broadcast(variable) }

    /// Waits until signalled or until `seconds` have passed; false when the time is over.
    package func wait(seconds: Double) -> Bool {
        var until = timespec()
        clock_gettime(CLOCK_MONOTONIC, &until)
        let nanoseconds = until.tv_nsec + Int(seconds.truncatingRemainder(dividingBy: 1) * 1e9)
        until.tv_sec += Int(seconds) + nanoseconds / 1_000_000_000
        until.tv_nsec = nanoseconds % 1_000_000_000
        return pthread_cond_timedwait(variable, mutex, &until) == 0
    }
}

/// Starts a detached thread with a stack of 1 MiB and the given name (15 bytes are shown); pthread_create(3).
///
/// - Throws: EAGAIN when the system gives no more threads or no memory for one; `body` is not called then.
package func startThread(name: String, _ body: @escaping @Sendable () -> Void) throws(Errno) {
    final class Start: Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
    try Failpoint.reach("thread.start")
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    pthread_attr_setstacksize(&attributes, 1 << 20)
    pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    defer { pthread_attr_destroy(&attributes) }
    var thread = pthread_t()
    let start = Unmanaged.passRetained(
        Start {
            passhsm_name_thread(name)
            body()
        })
    let result = pthread_create(
        &thread, &attributes,
        { argument in
            guard let argument else { return nil }
            Unmanaged<Start>.fromOpaque(argument).takeRetainedValue().body()
            return nil
        }, start.toOpaque())
    guard result == 0 else {
        start.release()
        throw Errno(rawValue: result)
    }
}
