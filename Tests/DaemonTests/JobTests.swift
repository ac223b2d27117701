import Glibc
import HSMControl
import HSMSystem
import Synchronization
import TestSupport
import Testing

@testable import HSMDaemon

/// Work on files that clients ask a daemon for.
@Suite struct JobTests {
    @Test("A job does each file, and its last report says that it is done")
    func done() throws {
        let fixture = try DaemonFixture()
        var reports: [WorkReport] = []
        let request = FileRequest(.recall, paths: [BytePath("")], isRecursive: true)
        try fixture.client.work(request) { reports.append($0) }
        #expect(reports.last?.isDone == true && reports.dropLast().allSatisfy { !$0.isDone })
        #expect(reports.last?.files == 3 && reports.last?.bytes == 300)
        let files = try ["a", "b", "dir/c"].map { FakeFrontEnd.Call.recalled(try fixture.inode($0)) }
        #expect(Set(fixture.frontEnd.calls) == Set(files + [.start]))
    }

    @Test("A file that is not there fails by itself", arguments: FileRequest.Action.allCases)
    func failure(action: FileRequest.Action) throws {
        let fixture = try DaemonFixture()
        var failures: [WorkReport.Failure] = []
        var files = 0
        try fixture.client.work(FileRequest(action, paths: [BytePath("missing"), BytePath("a")])) { report in
            failures += report.failures
            files = report.files
        }
        #expect(failures.map(\.path) == [BytePath("missing")] && files == 1)
    }

    @Test("A job ends when its client goes away")
    func clientGoes() throws {
        let fixture = try DaemonFixture()
        fixture.frontEnd.hold(true)
        do {
            let socket = try fixture.connect()
            let line = Array(#"{"command":"recall","paths":["a","b"]}"#.utf8) + [10]
            try socket.write(line, until: Deadline(seconds: 20))
            try until("recalls") { fixture.frontEnd.waiting == 2 }
        }
        try until("the end of the recalls") { fixture.frontEnd.waiting == 0 }
        let files = try ["a", "b"].map { FakeFrontEnd.Call.cancelled(try fixture.inode($0)) }
        #expect(Set(fixture.frontEnd.calls) == Set(files + [.start]))
    }

    @Test(
        "A job that runs when the daemon ends is cancelled, its client is told, and the mount's end waits for it",
        arguments: [true, false])
    func shutdown(isStopped: Bool) throws {
        let fixture = try DaemonFixture()
        fixture.frontEnd.hold(true)
        let hasEnded = try DaemonFixture.start(fixture.daemon.run)
        let client = try fixture.client
        let error = Mutex<ControlError?>(nil)
        let isDone = Mutex(false)
        let answered = try DaemonFixture.start {
            do throws(ControlError) {
                let request = FileRequest(.recall, paths: [BytePath("")], isRecursive: true)
                try client.work(request) { report in if report.isDone { isDone.withLock { $0 = true } } }
            } catch let refusal { error.withLock { $0 = refusal } }
        }
        try until("recalls") { fixture.frontEnd.waiting == 3 }
        if isStopped { fixture.daemon.stop() } else { fixture.frontEnd.unmount() }
        try hasEnded()
        try answered()
        #expect(error.withLock { $0?.reason } == .refused && !isDone.withLock { $0 })
        #expect(error.withLock { $0?.description.hasSuffix(JobList.ending) } == true)
        let files = try ["a", "b", "dir/c"].map { FakeFrontEnd.Call.cancelled(try fixture.inode($0)) }
        #expect(Set(fixture.frontEnd.calls).isSuperset(of: files))
        #expect(fixture.frontEnd.calls.last == .finish, "the end waits for the jobs")
    }

    @Test("A job that comes while the daemon ends is refused")
    func late() throws {
        let fixture = try DaemonFixture()
        let socket = try fixture.connect()
        fixture.daemon.stop()
        #expect(try fixture.ask(#"{"command":"pin","paths":["a"]}"#, socket).error == JobList.ending)
        #expect(fixture.frontEnd.calls == [.start, .stop])
    }

    @Test("The end does not wait for a job for ever")
    func stuck() throws {
        let fixture = try DaemonFixture()
        let jobs = JobList()
        let job = FileJob(FileRequest(.pin, paths: [BytePath("a")]), on: fixture.frontEnd)
        // The client takes nothing: its last answer does not end.
        let (isStuck, isFree) = (Flag(), Flag())
        let hasEnded = try DaemonFixture.start {
            jobs.run(job) { _ in
                isStuck.set()
                while !isFree.isSet { usleep(1000) }
                return true
            }
        }
        try until("an answer") { isStuck.isSet }
        #expect(jobs.count == 1 && !jobs.end(seconds: 0.2))
        isFree.set()
        try hasEnded()
        #expect(jobs.end(seconds: 20) && jobs.count == 0)
    }
}
