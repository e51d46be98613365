/** Name of the newest learned policy that comes with the product; its files are in `policies/checkpoints`, in a folder of that name. */
export const shippedPolicy = 'dispatch-4';
