import Glibc
import HSMSystem
import Testing

extension MountTests.FrontEnds {
    @Test("A scenario ends the same with either front end", arguments: Scenario.all, FrontEnd.allCases)
    func scenario(_ scenario: Scenario, frontEnd: FrontEnd) throws {
        try scenario.perform(by: frontEnd)
    }

    // CI's form has those scenarios only that want a file system of their own.
    @Test(
        "A scenario ends the same with either front end on ext4, xfs and btrfs",
        arguments: product(Machine.isLong ? Scenario.all : [], Disk.Kind.allCases), FrontEnd.allCases)
    func onDisk(_ row: (scenario: Scenario, kind: Disk.Kind), frontEnd: FrontEnd) throws {
        try row.scenario.perform(by: frontEnd, on: row.kind)
    }
}

private func product(_ scenarios: [Scenario], _ kinds: [Disk.Kind]) -> [(scenario: Scenario, kind: Disk.Kind)] {
    scenarios.flatMap { scenario in kinds.map { (scenario, $0) } }
}

extension Scenario {
    static let all = reading + calls + changing + failing + managing + remotes + stacked
}
