/* Says where it runs, its rank, how many ranks there are, and a sum over all of them. */
#include <mpi.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
  int rank, size, sum;
  char host[64];
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  gethostname(host, sizeof host);
  printf("%s: %d of %d, sum %d\n", host, rank, size, sum);
  fflush(stdout);
  MPI_Barrier(MPI_COMM_WORLD);
#ifdef MPICH_VERSION
  /* Debian 12's MPICH hangs in MPI_Finalize now and then where there is more than one node. */
  _exit(0);
#endif
  MPI_Finalize();
  return 0;
}
